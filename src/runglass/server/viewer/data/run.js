// What a run's summary says, as the pages show it. Pure.
import { count, money, oneLine } from "./format.js";

/** @typedef {{prompt: number, completion: number, total: number}} Tokens */
/** @typedef {{completed: number, failed: number, retried: number, skipped: number, cancelled?: number, tokens?: Tokens, costUsd?: string,
 *   failedCostUsd?: string, byModel?: Record<string, object>, finishReasons?: Record<string, number>,
 *   unmeteredCalls?: number}} Totals */
/** @typedef {{id: string, flowId: string, status: string, triggerType?: string, startedAt?: string,
 *   completedAt?: string, durationMs?: number, stepCount?: number, flowSlug?: string, version?: number,
 *   sessionId?: string, startedBy?: string, error?: {code: string, message?: string, stepId?: string},
 *   totals?: Totals, expectedSteps?: number, loops?: Record<string, number>}} Run */

const ENDED = new Set(["completed", "failed", "cancelled"]);

/** Whether nothing follows any more. @param {Run} run */
export function hasEnded(run) {
  return ENDED.has(run.status);
}

/** How many milliseconds it has taken so far. @param {Run} run @param {number} nowMs */
export function soFarOf(run, nowMs) {
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
  const expected = (run.expectedSteps ?? run.stepCount ?? 0) - (run.totals?.skipped ?? 0);
  // Steps that are run anew, in a step-through, are more than were expected.
  return hasEnded(run) || stepsDone(run) > expected ? undefined : expected;
}

/** The name of its flow with the version: `grade-3 v4`. @param {Run} run */
export function flowOf(run) {
  return `${run.flowSlug ?? run.flowId}${run.version === 0 ? " draft" : run.version ? ` v${run.version}` : ""}`;
}

/** What came of it, in a line; empty where it simply went well. @param {Run} run */
export function outcomeOf(run) {
  if (run.status === "cancelled") return cancelledBy(run);
  if (run.error) {
    const where = run.error.stepId ? `${run.error.stepId}: ` : "";
    const message = run.error.message ? ` ${run.error.message}` : "";
    return oneLine(`${where}${run.error.code}${message}`);
  }
  if (run.status === "paused") return "waits for its caller";
  if (run.status === "pending") return "waits for a place";
  return remarksOf(run);
}

/** That it was cancelled, and by whom or why. @param {Run} run */
export function cancelledBy(run) {
  const reason = oneLine(run.error?.message ?? "");
  return reason.startsWith("cancelled") ? reason : `cancelled${reason && `: ${reason}`}`;
}

/** What its numbers do not tell, or tell too well; empty where there is nothing to beware of. @param {Run} run */
export function remarksOf(run) {
  const cut = run.totals?.finishReasons?.length ?? 0;
  const unmetered = run.totals?.unmeteredCalls ?? 0;
  return [
    run.totals?.failedCostUsd && `${money(run.totals.failedCostUsd)} went into failed attempts`,
    cut > 0 && `${count(cut, "text")} cut at the token limit`,
    unmetered > 0 && `${count(unmetered, "model call")} without usage told`,
  ].filter(Boolean).join("; ");
}
