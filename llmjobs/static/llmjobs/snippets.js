/** A request as a command or a program that makes it: with a key from the environment, never one in the text. Pure. */

/** @param {string} origin such as "https://jobs.example.com" @param {Object} submitted what `POST /api/jobs` takes */
export function curl(origin, submitted) {
  const quoted = JSON.stringify(submitted, null, 2).replaceAll("'", `'\\''`);
  return [
    `curl '${origin}/api/jobs' \\`,
    `  -H "Authorization: Bearer $LLMJOBS_KEY" \\`,
    `  -H 'Content-Type: application/json' \\`,
    `  -d '${quoted}'`,
  ].join("\n");
}

/** Python's own library alone, so that it runs wherever Python does. */
export function python(origin, submitted) {
  // JSON of ASCII in a Python string: with its backslashes doubled and its quotes escaped it is the same text again.
  const json = JSON.stringify(submitted, null, 2).replace(/[\u007f-\uffff]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const escaped = json.replaceAll("\\", "\\\\").replaceAll('"""', '\\"\\"\\"');
  return [
    "import json, os, urllib.request",
    "",
    `submitted = json.loads("""${escaped}""")`,
    "request = urllib.request.Request(",
    `    ${JSON.stringify(`${origin}/api/jobs`)},`,
    "    data=json.dumps(submitted).encode(),",
    `    headers={"Authorization": "Bearer " + os.environ["LLMJOBS_KEY"], "Content-Type": "application/json"},`,
    ")",
    "print(json.load(urllib.request.urlopen(request)))",
  ].join("\n");
}
