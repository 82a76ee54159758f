// One JSON line per finished case, for the tests that started node: see foreign.py.

export default async function* reporter(source) {
  for await (const event of source) {
    if (event.type !== "test:pass" && event.type !== "test:fail") continue;
    const error = event.data.details?.error;
    // A file that cannot even be loaded is reported under its own name.
    yield `${JSON.stringify({
      case: event.data.name,
      passed: event.type === "test:pass",
      error: String(error?.cause?.stack ?? error?.stack ?? ""),
    })}\n`;
  }
}
