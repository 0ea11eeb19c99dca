import { type Static, Type } from "typebox";
import { searchSubjects } from "../../store/agent-reads.ts";
import { fitting, type Tool } from "../tool.ts";

const rowsMax = 100;

const Arguments = Type.Object(
  {
    name: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 200,
        description: "part of a name, species or device key; leave out for all",
      }),
    ),
  },
  { additionalProperties: false },
);

const Result = Type.Object({
  total: Type.Integer({ description: "subjects there are, listed or not" }),
  subjects: Type.Array(
    Type.Object({
      name: Type.String(),
      species: Type.Union([Type.String(), Type.Null()]),
      devices: Type.Array(Type.String()),
    }),
  ),
  cut: Type.Boolean({ description: "there are more than are listed" }),
});

/** Who is tracked: names, species and devices. */
export const listSubjects = {
  name: "list_subjects",
  description:
    "Lists the subjects (animals, vehicles, people) that are tracked, with species and devices, and says how many " +
    "there are. Use it to find a subject's exact name.",
  arguments: Arguments,
  result: Result,
  async run({ name }: Static<typeof Arguments>, { pool }): Promise<Static<typeof Result>> {
    const { subjects, total } = await searchSubjects(pool, { text: name, limit: rowsMax });
    const lines = subjects.map((line) => ({ ...line, devices: line.devices.slice(0, 5) }));
    const { rows } = fitting(lines);
    return { total, subjects: rows, cut: rows.length < total };
  },
  tell({ total, subjects, cut }: Static<typeof Result>): string {
    if (total === 0) return "No subjects were found.";
    const names = subjects.map(({ name, species }) => (species ? `${name} (${species})` : name)).join(", ");
    return `Subjects: ${total}. ${cut ? "The first of them: " : ""}${names}.`;
  },
} satisfies Tool<typeof Arguments, typeof Result>;
