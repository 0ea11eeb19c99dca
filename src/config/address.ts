/** Where a server that is bound to an address is reached from this machine, as a URL's origin. */
export function originOf({ host, port }: { readonly host: string; readonly port: number }): string {
  const anywhere: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "::": "::1" };
  const address = anywhere[host] ?? host;
  return `http://${address.includes(":") ? `[${address}]` : address}:${port}`;
}
