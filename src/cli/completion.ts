import type { Command } from "commander";

export const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

/** The services that a station of ours has, for where none runs that could be asked. */
export const ownServices = ["database", "chat", "agent", "api", "sync"];

/** The command that the script asks for the services, whenever somebody completes one. */
export const namesCommand = "service-names";

const takeFiles = new Set(["import", "batch"]);
const takeServices = new Set(["up", "start", "stop", "restart", "logs", "why", "scale"]);

/** A script that completes verbs, options and the services that run, made from the commands themselves. */
export function completionScript(shell: Shell, program: Command): string {
  const shown = program.commands.filter((command) => command.name() !== namesCommand);
  const asked = shell === "fish" ? `(pugmark ${namesCommand})` : `$(pugmark ${namesCommand} 2>/dev/null)`;
  const verbs = shown.map((command) => ({
    name: command.name(),
    description: command.description(),
    words: [
      ...new Set([command, ...command.commands].flatMap(optionsOf)),
      ...command.commands.map((below) => below.name()),
      ...(takeServices.has(command.name()) ? [asked] : []),
    ].join(" "),
  }));
  if (shell === "fish") {
    return verbs
      .flatMap(({ name, description, words }) => [
        `complete -c pugmark -n __fish_use_subcommand ${takeFiles.has(name) ? "" : "-f "}-a ${name} -d ${quoted(description)}`,
        `complete -c pugmark -n '__fish_seen_subcommand_from ${name}' -a ${quoted(words)}`,
      ])
      .join("\n");
  }
  const cases = verbs.map(({ name, words }) => `    ${name}) candidates="${words}" ;;`).join("\n");
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

function optionsOf({ options }: Command): string[] {
  return options.flatMap(({ long, hidden }) => (long && !hidden ? [long] : []));
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
