import assert from "node:assert/strict";
import http from "node:http";
import { eventually } from "./fixture.ts";

/**
 * For tests: clients that ask without pause until told to stop, each request on a connection of its own or, with an
 * agent, on those that it keeps.
 */
export class ClientLoad {
  answers = 0;
  readonly failures: string[] = [];
  readonly #clients: Promise<void>[];
  #isOver = false;

  constructor(port: number, clients: number, path: string, agent: http.Agent | false = false) {
    this.#clients = Array.from({ length: clients }, () =>
      this.#client({ host: "127.0.0.1", port, path, agent }),
    );
  }

  async end(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#clients);
  }

  /** Resolves when so many more requests were answered. */
  async answered(more: number): Promise<void> {
    const enough = this.answers + more;
    await eventually(`${more} more answers`, () => assert.ok(this.answers >= enough));
  }

  async #client(options: http.RequestOptions): Promise<void> {
    while (!this.#isOver) {
      await request(options).then(
        () => {
          this.answers += 1;
        },
        (error: NodeJS.ErrnoException) => {
          this.failures.push(error.code ?? error.message);
        },
      );
    }
  }
}

function request(options: http.RequestOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    http
      .get(options, (response) => {
        response.resume().on("end", resolve).on("error", reject);
      })
      .on("error", reject);
  });
}
