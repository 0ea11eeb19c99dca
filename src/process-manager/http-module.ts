/**
 * `node:http`. An import of it reads every name that it exports, and `WebSocket` among them loads the whole of fetch:
 * 12 MiB and 30 ms for something that the manager never uses.
 */
export const http = process.getBuiltinModule("node:http");
