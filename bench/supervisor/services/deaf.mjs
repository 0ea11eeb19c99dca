// Obeys no polite signal.
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"]) process.on(signal, () => {});
setInterval(() => {}, 1_000_000);
