import type { FastifyReply } from "fastify";

/**
 * Says in the header `x-model` which model answered, where it is not the one that was asked: LM Studio lets the
 * one that is loaded answer for one it does not know (lmstudio-bug-tracker#619), and says so in `model` alone.
 */
export function setAnsweringModel(reply: FastifyReply, asked: string, answered: string): void {
  // A header takes less than a name may have in it.
  if (answered !== asked) reply.header("x-model", encodeURI(answered.toWellFormed()));
}
