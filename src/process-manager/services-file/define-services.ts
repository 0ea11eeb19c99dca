import type { ExternalDefinition, ServiceDefinition } from "../definition.ts";

/** A service of a services file, where its key is its name. */
export interface ServiceEntry extends Omit<ServiceDefinition, "name"> {
  /** Relative to the file's folder; a later one wins, `env` wins over all. With a `?` at its end it may be missing. */
  readonly envFiles?: readonly string[];
}

/** What a services file says; `schema/services.schema.json` is the same for JSON and YAML. */
export interface ServicesFile {
  readonly $schema?: string;
  readonly services: Readonly<Record<string, ServiceEntry | Omit<ExternalDefinition, "name">>>;
  /** For every service; its own win. */
  readonly env?: Readonly<Record<string, string>>;
  readonly envFiles?: readonly string[];
  /** What all logs together may take of the disk; then the oldest files go. Default 1 GiB. */
  readonly logsMaxBytes?: number;
}

/** The default export of a services file in TypeScript, checked by the compiler where it is written. */
export function defineServices<const F extends ServicesFile>(file: F): F {
  return file;
}

export {
  type Definition,
  defineExternal,
  defineService,
  type ExternalDefinition,
  type ServiceDefinition,
} from "../definition.ts";
