// What a page on another port of the host asks for, with the browser's cookies; gives what it gets to see or know.
async (api) => {
  const loads = (name, from) => new Promise((yes, no) => {
    const made = Object.assign(document.createElement(name), { onload: () => yes(made), onerror: no });
    for (const [key, value] of Object.entries(from)) made[key] = value;
    document.body.append(made);
  });
  const unless = (is, what) => { if (is) throw new Error(what); };
  const body = '{"role": "admin"}';
  const credentials = "include";
  const asks = {
    "reads": () => fetch(`${api}/flow-runs`, { credentials }).then((answer) => answer.text()),
    "sends a proof": () => fetch(`${api}/flow-runs`, { credentials, headers: { "X-Viewer-Proof": "x" } }),
    "sends JSON": () => fetch(`${api}/keys`, {
      method: "POST", credentials, body, headers: { "Content-Type": "application/json" },
    }),
    "deletes": () => fetch(`${api}/viewer/session`, { method: "DELETE", credentials }),
    "is told of a blind POST": () => fetch(`${api}/keys`, { method: "POST", mode: "no-cors", credentials, body })
      .then((answer) => unless(answer.type === "opaque", "opaque")),
    "has the proof": async () => unless(!localStorage.getItem("runglass.proof"), "none"),
    "loads a script": () => loads("script", { src: `${api}/flow-runs` }),
    "loads an image": () => loads("img", { src: `${api}/flow-runs` }),
    "loads a style": () => loads("link", { rel: "stylesheet", href: `${api}/flow-runs` }),
    "sees a frame": async () => {
      const frame = await loads("iframe", { src: api.replace("/api/v1", "/") });
      unless(!frame.contentDocument, "another origin");
    },
    "sees what came of a form": async () => {
      const frame = await loads("iframe", { name: "sent" });
      const form = document.createElement("form");
      Object.assign(form, { method: "post", enctype: "text/plain", action: `${api}/keys`, target: "sent" });
      // As plain text it is the JSON above, with one member more.
      form.append(Object.assign(document.createElement("input"), { name: '{"role": "admin", "x": "', value: '"}' }));
      document.body.append(form);
      const answered = new Promise((done) => { frame.onload = done; });
      form.submit();
      await answered;
      unless(!frame.contentDocument, "another origin");
    },
  };
  const done = [];
  for (const [name, ask] of Object.entries(asks)) await ask().then(() => done.push(name), () => {});
  return done;
}
