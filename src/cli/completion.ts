import type { Command } from "commander";

export const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

const services = ["database", "chat", "agent", "api"];
const takeServices = new Set(["up", "start", "stop", "restart", "logs", "why"]);

/** A script that completes verbs, options and service names, made from the commands themselves. */
export function completionScript(shell: Shell, program: Command): string {
  const verbs = program.commands.map((command) => ({
    name: command.name(),
    description: command.description(),
    words: [
      ...command.options.map(({ long }) => long ?? "").filter(Boolean),
      ...(takeServices.has(command.name()) ? services : []),
    ],
  }));
  if (shell === "fish") {
    return verbs
      .flatMap(({ name, description, words }) => [
        `complete -c pugmark -n __fish_use_subcommand ${name === "import" ? "" : "-f "}-a ${name} -d ${quoted(description)}`,
        `complete -c pugmark -n '__fish_seen_subcommand_from ${name}' -a ${quoted(words.join(" "))}`,
      ])
      .join("\n");
  }
  const cases = verbs
    .map(({ name, words }) => `    ${name}) candidates=${quoted(words.join(" "))} ;;`)
    .join("\n");
  const script = `_pugmark() {
  local candidates=${quoted(verbs.map(({ name }) => name).join(" "))}
  if [ "$COMP_CWORD" -gt 1 ]; then
    case "\${COMP_WORDS[1]}" in
${cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$candidates" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _pugmark pugmark`;
  return shell === "zsh" ? `autoload -U +X bashcompinit && bashcompinit\n${script}` : script;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
