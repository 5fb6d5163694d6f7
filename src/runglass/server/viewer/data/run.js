// What a run's summary says, as the pages show it. Pure.
import { count, exact, money, oneLine } from "./format.js";

/** @typedef {{prompt: number, completion: number, total: number}} Tokens */
/** Of calls that were paid by token: of some the provider told no usage, of others no price is known.
 * @typedef {{costUsd?: string, tokens?: Tokens, unmeteredCalls?: number, unpricedCalls?: number, estimatedCostUsd?: string}} Spent */
/** @typedef {Spent & {calls: number}} ModelTotals */
/** @typedef {Spent & {completed: number, failed: number, retried: number, skipped: number, cancelled?: number,
 *   failedCostUsd?: string, byModel?: Record<string, ModelTotals>, finishReasons?: Record<string, number>}} Totals */
/** What another program told of a run. @typedef {{traceId: string, name?: string, entrySpanId?: string, entryEnded?: boolean, session?: string,
 *   user?: string, tags?: string[], service?: string, release?: string, environment?: string, continues?: string, notes?: string[]}} Recording */
/** @typedef {{id: string, flowId: string, status: string, triggerType?: string, startedAt?: string,
 *   completedAt?: string, durationMs?: number, stepCount?: number, flowSlug?: string, version?: number,
 *   sessionId?: string, startedBy?: string, error?: {code: string, message?: string, stepId?: string},
 *   totals?: Totals, expectedSteps?: number, loops?: Record<string, number>, overridden?: string[],
 *   inputPreview?: string, resultPreview?: string, rerunOf?: string, recording?: Recording, continuedBy?: string,
 *   unreadable?: boolean}} Run */

const ENDED = new Set(["completed", "failed", "cancelled"]);

/** Whether nothing follows any more. @param {Run} run */
export function hasEnded(run) {
  return ENDED.has(run.status);
}

/** How many milliseconds it has taken so far. @param {Run} run @param {number} nowMs */
export function soFarOf(run, nowMs) {
  // How long ago the spans of a program were is not how long it takes.
  if (run.recording?.entryEnded) return undefined;
  return run.startedAt ? Math.max(0, nowMs - Date.parse(run.startedAt)) : undefined;
}

/** Attempts that have ended, whichever way. @param {Run} run */
export function stepsDone(run) {
  const totals = run.totals;
  return totals ? totals.completed + totals.failed : 0;
}

/** How many steps it will have ended, as far as loops have begun; undefined where nobody can tell, or it has ended.
 * @param {Run} run */
export function stepsExpected(run) {
  if (run.recording) return undefined;
  const expected = (run.expectedSteps ?? run.stepCount ?? 0) - (run.totals?.skipped ?? 0);
  // Steps that are run anew, in a step-through, are more than were expected.
  return hasEnded(run) || stepsDone(run) > expected ? undefined : expected;
}

/** How its attempts have ended: `5 completed, 1 failed`. @param {Run} run */
export function attemptsOf({ totals }) {
  if (!totals) return "";
  const parts = [`${exact(totals.completed)} completed`];
  const cancelled = totals.cancelled ?? 0;
  const { retried, skipped } = totals;
  for (const [name, number] of Object.entries({ failed: totals.failed - cancelled, cancelled, retried, skipped })) {
    if (number) parts.push(`${exact(number)} ${name}`);
  }
  return parts.join(", ");
}

/** The name of its flow with the version: `grade-3 v4`; of a recorded run its own name. @param {Run} run */
export function flowOf(run) {
  if (run.recording) return run.recording.name ?? run.flowSlug ?? run.flowId;
  return `${run.flowSlug ?? run.flowId}${run.version === 0 ? " draft" : run.version ? ` v${run.version}` : ""}`;
}

/** What came of it, in a line; empty where it simply went well. That a price is not known stands with the cost. @param {Run} run */
export function outcomeOf(run) {
  const remarks = [run.unreadable && "unreadable", remarksOf(run), run.totals && unknownCosts({ ...run.totals, unpricedCalls: 0 }), run.overridden?.length && "with overrides"];
  return [endOf(run), ...remarks].filter(Boolean).join("; ");
}

/** @param {Run} run */
function endOf(run) {
  if (run.status === "cancelled") return cancelledBy(run);
  if (run.error) {
    const where = run.error.stepId ? `${run.error.stepId}: ` : "";
    const message = run.error.message ? ` ${run.error.message}` : "";
    return oneLine(`${where}${run.error.code}${message}`);
  }
  if (run.status === "paused") return "waiting for its caller";
  if (run.recording && !hasEnded(run)) return run.recording.entryEnded ? "entry ended, waiting for the end of the run" : "";
  return run.status === "pending" ? "waiting for a slot" : "";
}

/** That it was cancelled, and by whom or why. @param {Run} run */
export function cancelledBy(run) {
  const reason = oneLine(run.error?.message ?? "");
  return reason.startsWith("cancelled") ? reason : `cancelled${reason && `: ${reason}`}`;
}

/** What its numbers do not tell, or tell too well; empty where there is nothing to beware of. @param {Run} run */
export function remarksOf(run) {
  const cut = run.totals?.finishReasons?.length ?? 0;
  const failed = run.status === "completed" ? run.totals?.failed ?? 0 : 0;
  return [
    failed > 0 && count(failed, "failed step"),
    run.totals?.failedCostUsd && `${money(run.totals.failedCostUsd)} spent on failed attempts`,
    cut > 0 && `${count(cut, "text")} truncated (max_tokens)`,
  ].filter(Boolean).join("; ");
}

/** A cost as far as it is known: `≥ $0.12` where that of some calls is not, `≈ $0.12` where they stand in it as they
 * were reserved; empty where none is known. @param {Spent|undefined} spent @param {(usd: string) => string} [said] */
export function leastCost(spent, said = money) {
  if (!spent?.costUsd) return "";
  const sign = spent.estimatedCostUsd ? "≈ " : unknownCosts(spent) ? "≥ " : "";
  return `${sign}${said(spent.costUsd)}`;
}

/** How many calls have no known cost, by reason; empty where all costs are known. @param {Spent} spent */
export function unknownCosts({ unmeteredCalls = 0, unpricedCalls = 0 }) {
  return [
    unmeteredCalls > 0 && `no usage reported for ${count(unmeteredCalls, "call")}`,
    unpricedCalls > 0 && `no known price for ${count(unpricedCalls, "call")}`,
  ].filter(Boolean).join(", ");
}

/** The cost and what is not known of it: `≥ $0.12, 1 call without usage`; empty where no model was called.
 * @param {Spent|undefined} spent */
export function costOf(spent) {
  return spent ? [leastCost(spent), unknownCosts(spent)].filter(Boolean).join(", ") : "";
}

/** What each of several models cost, by name; empty where the sum is that of one. @param {Run} run @returns {[string, string][]} */
export function modelsOf({ totals }) {
  const models = Object.entries(totals?.byModel ?? {});
  if (models.length < 2) return [];
  return models.map(([name, of]) => [name, [
    count(of.calls, "call"), of.tokens && count(of.tokens.total, "token"), costOf(of),
  ].filter(Boolean).join(", ")]);
}
