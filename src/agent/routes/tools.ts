import { Type } from "typebox";
import type { App } from "../../http/app.ts";
import { problems } from "../../http/problem.ts";
import type { Pool } from "../../store/pool.ts";
import { callTool, type Tool } from "../tool.ts";
import { whileAwaited } from "./client.ts";

const ToolList = Type.Object({
  tools: Type.Array(
    Type.Object({
      name: Type.String(),
      description: Type.String(),
      arguments: Type.Unknown({ description: "JSON Schema of what it takes" }),
      result: Type.Unknown({ description: "JSON Schema of what it returns" }),
    }),
  ),
});

/** `GET /tools`, and `POST /tools/{name}` for each: what the agent can look up, for people and programs too. */
export function toolRoutes(
  app: App,
  {
    pool,
    tools,
    timeoutMs,
  }: { readonly pool: Pool; readonly tools: readonly Tool[]; readonly timeoutMs: number },
): void {
  app.get(
    "/tools",
    {
      schema: {
        tags: ["tools"],
        operationId: "listTools",
        summary: "What the agent can look up",
        response: { 200: ToolList },
      },
    },
    async () => ({
      tools: tools.map(({ name, description, arguments: args, result }) => ({
        name,
        description,
        arguments: args,
        result,
      })),
    }),
  );

  // A route for each, so that the OpenAPI page has each tool's own schemas.
  for (const tool of tools) {
    app.post(
      `/tools/${tool.name}`,
      {
        config: { scope: "read" },
        schema: {
          tags: ["tools"],
          operationId: tool.name,
          summary: `Run ${tool.name} by hand`,
          description: tool.description,
          body: tool.arguments,
          response: {
            200: Type.Object({
              tool: Type.Literal(tool.name),
              arguments: tool.arguments,
              result: tool.result,
            }),
            ...problems({
              400: "request-invalid, tool-arguments-invalid",
              404: "subject-unknown",
              503: "database-away: Retry-After says when to try again",
              504: "ask-timeout",
            }),
          },
        },
      },
      async (request, reply) => {
        const result = await callTool(tools, tool.name, request.body, {
          pool,
          signal: whileAwaited(reply, timeoutMs),
        });
        return { tool: tool.name, arguments: request.body, result };
      },
    );
  }
}
