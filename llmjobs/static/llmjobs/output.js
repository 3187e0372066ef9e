/**
 * An answer as it arrives: text nodes in blocks, drawn once a frame, scrolled along for who reads at its end.
 *
 * A browser lays a whole block out anew when its text grows. So the text is cut into blocks at line ends, and only the
 * last one grows: ten thousand deltas, or a megabyte, stay fluid. What is cut is the layout alone: the blocks' text
 * together is the answer, letter by letter, as a reader may copy it.
 */

import { make } from "./dom.js";

const BLOCK_CHARS = 2000; // after these a block ends at the next end of a line
const BLOCK_CHARS_MAX = 20_000; // or here, where no line ends
const NEAR_END_PX = 40; // a reader so close to the end wants to stay there
const FRAME_MS = 250; // where the browser draws no frames (a tab in the background)
const STYLED_CHARS_MAX = 200_000;

/** @param {HTMLElement} element @param {HTMLElement} scroller the element, or one around it, that scrolls */
export function createOutput(element, scroller) {
  let pieces = [];
  let unwritten = "";
  let block = null;
  let length = 0; // of the text in `block`
  let frame = 0;
  let timer = 0;

  function append(text) {
    pieces.push(text);
    unwritten += text;
    frame ||= requestAnimationFrame(write);
    timer ||= setTimeout(write, FRAME_MS);
  }

  function write() {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    frame = timer = 0;
    if (unwritten) atEnd(add);
  }

  /** Makes `change` in the scroller, whose reader stays at the end if that is where the reader is. */
  function atEnd(change) {
    const wasAtEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END_PX;
    change();
    if (wasAtEnd) scroller.scrollTop = scroller.scrollHeight;
  }

  function add() {
    for (let at = 0; at < unwritten.length;) {
      if (block === null) element.append((block = make("div")));
      const part = unwritten.slice(at, at + cutOf(unwritten, at, length));
      block.append(part);
      at += part.length;
      length += part.length;
      if (length >= BLOCK_CHARS_MAX || (length >= BLOCK_CHARS && part.endsWith("\n"))) endBlock();
    }
    unwritten = "";
  }

  function endBlock() {
    block.normalize();
    block = null;
    length = 0;
  }

  function clear() {
    pieces = [];
    unwritten = "";
    block = null;
    length = 0;
    element.replaceChildren();
  }

  /** The whole text at once. */
  function set(text) {
    if (text === value()) return write();
    clear();
    append(text);
    write();
  }

  function value() {
    if (pieces.length > 1) pieces = [pieces.join("")];
    return pieces[0] ?? "";
  }

  /** No more comes: blocks of code are set in their own type, unless a reader has marked something. */
  function finish() {
    write();
    const text = value();
    const isMarked = !getSelection().isCollapsed && element.contains(getSelection().anchorNode);
    if (isMarked || text.length > STYLED_CHARS_MAX || !text.includes("```")) return;
    atEnd(() => element.replaceChildren(...styled(text)));
    block = null;
    length = 0;
  }

  return { append, clear, set, finish, value, atEnd };
}

/** How many characters from `at` on belong to the block that has `length` of them already. */
export function cutOf(text, at, length) {
  const lineEnd = text.indexOf("\n", at + Math.max(0, BLOCK_CHARS - length));
  const most = BLOCK_CHARS_MAX - length;
  if (lineEnd !== -1 && lineEnd + 1 - at <= most) return lineEnd + 1 - at;
  // No surrogate pair is torn: its halves would be two signs for "unknown".
  return /[\ud800-\udbff]/.test(text.charAt(at + most - 1)) ? most + 1 : most;
}

/** Elements for `text`, whose blocks between ``` are set as code. Their text is `text`, the fences included. */
export function styled(text) {
  return sections(text).map(({ kind, text: part }) => make("div", { class: kind === "text" ? null : kind }, part));
}

/** @returns {{kind: "text"|"fence"|"code", text: string}[]} which joined are `text` again */
export function sections(text) {
  const found = [];
  let fence = null;
  for (const line of text.match(/[^\n]*\n|[^\n]+$/g) ?? []) {
    const mark = /^ {0,3}(`{3,})([^`]*)$/.exec(line.trimEnd())?.slice(1);
    const isClosing = fence !== null && mark !== undefined && mark[0].length >= fence.length && mark[1] === "";
    const isOpening = fence === null && mark !== undefined;
    const kind = isOpening || isClosing ? "fence" : fence === null ? "text" : "code";
    if (isOpening) fence = mark[0];
    else if (isClosing) fence = null;
    if (found.at(-1)?.kind === kind && kind !== "fence") found.at(-1).text += line;
    else found.push({ kind, text: line });
  }
  return found;
}
