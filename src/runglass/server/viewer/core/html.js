// What components are made of: `html` makes elements of a template, and text in it is always text.
import htm from "../vendor/htm.js";
import { h, render } from "../vendor/preact.js";

export { Component, createRef, Fragment } from "../vendor/preact.js";
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/hooks.js";
export { batch, computed, effect, signal, useComputed, useSignal, useSignalEffect } from "../vendor/signals.js";

export const html = htm.bind(h);
export { h, render };
