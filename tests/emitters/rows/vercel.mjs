// The cases of Vercel's AI SDK; `LEGACY` chooses between its two ways of telling spans.
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import { LegacyOpenTelemetry, OpenTelemetry } from "@ai-sdk/otel";
import { trace } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { BatchSpanProcessor, NodeTracerProvider } from "@opentelemetry/sdk-trace-node";
import { embed, generateText, isStepCount, registerTelemetry, streamText, tool } from "ai";
import { z } from "zod";

const provider = new NodeTracerProvider({ spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())] });
provider.register();
const options = { usage: true, providerMetadata: true };
registerTelemetry(process.env.LEGACY ? new LegacyOpenTelemetry() : new OpenTelemetry(options));
const tracer = trace.getTracer("program");
const openai = createOpenAI();
const model = openai.chat("gpt-5-mini");
const tools = {
  weather: tool({
    description: "The weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `rain in ${city}`,
  }),
};

const asked = (prompt, more = {}) => ({
  model,
  instructions: "Be brief.",
  prompt,
  maxRetries: 0,
  telemetry: { functionId: "forecaster" },
  ...more,
});

const inside = (name, work) =>
  tracer.startActiveSpan(name, async (span) => {
    await work();
    span.end();
  });

const cases = {
  chat: () => generateText(asked("What is the weather?", { maxOutputTokens: 400 })),
  stream: async () => {
    for await (const _ of streamText(asked("What is the weather?")).textStream);
  },
  stream_left: async () => {
    const control = new AbortController();
    const result = streamText(asked("Tell a tale. [long]", { abortSignal: control.signal, onError: () => {} }));
    for await (const _ of result.textStream) {
      control.abort();
      break;
    }
  },
  tools: () => generateText(asked("The weather of Oslo and Lima? [tools]", { tools, stopWhen: isStepCount(4) })),
  error_retry: () =>
    inside("answer", async () => {
      await generateText(asked("The weather? [fail-500]")).catch(() => {});
      await generateText(asked("The weather? [fail-429]", { maxRetries: 2 }));
    }),
  cached: () => generateText(asked("Think of the weather. [cached]")),
  responses: () => generateText(asked("The weather? [cached]", { model: openai.responses("gpt-5-mini") })),
  fanout: () =>
    inside("fan out", () =>
      Promise.all(
        [0, 1, 2].map((number) =>
          generateText(asked(`Weather ${number}? [tools]`, { tools, stopWhen: isStepCount(4) })),
        ),
      ),
    ),
  embeddings: () =>
    embed({ model: openai.embedding("text-embedding-3-small"), value: "rain", telemetry: { functionId: "rain" } }),
};

const say = (line) => process.stdout.write(`\n@@${JSON.stringify(line)}\n`);
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const version = (name) => JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;
const versions = Object.fromEntries(["ai", "@ai-sdk/otel", "@ai-sdk/openai"].map((name) => [name, version(name)]));
say({ versions, cannot: { sessions: "it has no field for a session" } });
for (const [name, work] of Object.entries(cases)) {
  say({ begin: name });
  await answers.next();
  let error = null;
  try {
    await work();
    await new Promise((resolve) => setTimeout(resolve, 50));
  } catch (caught) {
    error = caught.stack;
  }
  await provider.forceFlush();
  say({ end: name, error });
  await answers.next();
}
process.exit(0);
