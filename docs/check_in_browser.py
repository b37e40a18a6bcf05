"""Check a built site in a browser: what a reader would see broken, and the search.

    python docs/check_in_browser.py docs/_build
    python docs/check_in_browser.py docs/_build --screenshots /tmp/pictures

It needs Chromium or Chrome, and nothing else: it speaks to it through a pipe. The site
is served on this machine; a request to any other is a fault. Each page is opened on a
wide and on a narrow screen. Text must stand out in light and dark on a sample of pages.
"""

import argparse
import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTHS = (1280, 390)
SAMPLE = (
    "index.html",
    "get_started/first_steps.html",
    "how_to/save_and_share.html",
    "reference/parameters.html",
    "generated/sk_adalora.AdaLoraClassifier.html",
    "auto_examples/index.html",
    "auto_examples/plot_01_first_classifier.html",
    "understand/playground.html",
)
# What people type, and the pages of which one must be among the first three results.
SEARCHES = {
    "save model": ["how_to/save_and_share"],
    "load": ["how_to/save_and_share"],
    "multilabel": ["how_to/multilabel"],
    "how long": ["how_to/gpu_and_speed", "how_to/budget", "get_started/will_it_help"],
    "gpu": ["how_to/gpu_and_speed", "how_to/several_devices"],
    "regression": ["how_to/regression"],
    "out of memory": ["how_to/memory"],
    "explain": ["understand/explain"],
    "embeddings": ["how_to/embeddings"],
    "onnx": ["how_to/onnx_and_serving"],
    "imbalanced classes": ["how_to/imbalance"],
    "long texts": ["how_to/long_texts"],
    "grid search": ["how_to/search", "auto_examples/plot_04_grid_search"],
    "hyperparameter tuning": ["how_to/search", "how_to/search_space"],
    "probabilities": ["how_to/probabilities"],
    "calibration": ["how_to/probabilities", "auto_examples/plot_10_calibration"],
    "early stopping": ["how_to/early_stopping"],
    "pandas table": ["how_to/tables", "how_to/tables_with_numbers"],
    "install offline": ["get_started/install"],
    "peft": ["how_to/peft", "project/parity"],
    "cross validation": ["how_to/pipelines"],
    "incremental learning": ["how_to/continue_a_fit"],
    "shap": ["understand/explain"],
    "parameters": ["reference/parameters"],
}

# Lines that say what is broken on a page as it is shown now.
LOOK = """(async () => {
  const found = [], root = document.documentElement, wide = innerWidth + 1;
  if (root.scrollWidth > wide) {
    const out = [...document.querySelectorAll("body *")].filter(
      e => e.getBoundingClientRect().right > wide && e.checkVisibility()
        && getComputedStyle(e).position !== "fixed");
    const who = out.length ? out.pop().outerHTML.slice(0, 80) : "";
    found.push(`wider than the screen: ${root.scrollWidth} px, ${who}`);
  }
  for (const pre of document.querySelectorAll("pre")) {
    if (!pre.checkVisibility()) continue;
    const fits = pre.scrollWidth <= pre.clientWidth + 1;
    const scrolls = ["auto", "scroll"].includes(getComputedStyle(pre).overflowX);
    if (!fits && !scrolls)
      found.push("code leaves its box: " + pre.innerText.slice(0, 50));
  }
  for (const image of document.images) {
    image.loading = "eager";
    await image.decode().catch(() => {});
    if (!image.naturalWidth) found.push("no image: " + image.src);
    if (!image.hasAttribute("alt")) found.push("no alt text: " + image.src);
  }
  for (const name of ["title", "description", "image", "url"])
    if (HEAD && !document.querySelector(`meta[property="og:${name}"]`)?.content)
      found.push("no og:" + name);
  if (!document.querySelector("link[rel=icon]")) found.push("no icon");
  return found;
})()"""

# Texts whose colour is too near to what is behind it (WCAG AA: 4.5, large ones 3).
CONTRAST = """(async () => {
  document.documentElement.dataset.theme = THEME;
  const style = document.createElement("style");
  style.textContent = "* { transition: none !important }";
  document.head.append(style);
  const canvas = document.createElement("canvas").getContext("2d", {
    willReadFrequently: true });
  const numbers = colour => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map(
    i => top[i] * top[3] + below[i] * (1 - top[3]));
  const light = colour => {
    const [r, g, b] = colour.slice(0, 3).map(c => c / 255).map(
      c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement)
      layers.push(numbers(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below),
      THEME === "dark" ? [20, 24, 30] : [255, 255, 255]);
  };
  const found = new Map(), walker = document.createTreeWalker(
    document.querySelector("main"), NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const element = node.parentElement, style = getComputedStyle(element);
    if (!node.data.trim() || !element.checkVisibility({opacityProperty: true,
        visibilityProperty: true})) continue;
    if (element.closest("svg, .headerlink, [aria-hidden=true]")) continue;
    const paper = behind(element), ink = over(numbers(style.color), paper);
    const [a, b] = [light(paper), light(ink)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.6 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5))
      found.set(style.color + paper, `contrast ${ratio.toFixed(1)}, ${THEME}: `
        + node.data.trim().slice(0, 40));
  }
  return [...found.values()];
})()"""

# The text that the first copy button beside a prompt copies.
COPY = """(async () => {
  const block = [...document.querySelectorAll("div.highlight")].find(
    e => e.querySelector("pre")?.innerText.includes(PROMPT)
      && e.querySelector("button"));
  if (!block) return null;
  let text = null;
  document.addEventListener("copy", () => {
    const field = document.activeElement;
    text = field.value ?? String(getSelection());
  }, { once: true });
  block.querySelector("button").click();
  await new Promise(resolve => setTimeout(resolve, 100));
  return text;
})()"""

RESULTS = """[...document.querySelectorAll("#search-results ul.search > li > a")]
  .map(a => new URL(a.href).pathname.slice(1).replace(/\\.html$/, ""))"""

FINISHED = (
    "document.querySelector('#search-results h2')?.innerText === 'Search Results'"
)

PLAY = """(async () => {
  const find = what => [...document.querySelectorAll("#playground " + what)];
  const points = find("[data-row]"), found = [];
  if (points.length !== 200) found.push(`${points.length} points in place of 200`);
  if (!points.length) return found;
  const places = async when => {
    find(`[name=when][value=${when}]`)[0].click();
    await new Promise(resolve => setTimeout(resolve, 3000));
    return points.map(point => point.getAttribute("transform")).join();
  };
  if (await places("before") === await places("after"))
    found.push("the switch moves no point");
  points[7].dispatchEvent(new MouseEvent("click", { bubbles: true }));
  const tints = find("[data-value]").map(w => getComputedStyle(w).backgroundColor);
  if (new Set(tints).size < 2) found.push("a click shows no tinted words");
  const label = points[7].getAttribute("aria-label");
  const said = find("[data-class]").map(e => e.innerText).join();
  if (!said || !label.endsWith(said)) found.push("a click shows no class");
  points[7].dispatchEvent(new KeyboardEvent("keydown",
    { key: "ArrowUp", bubbles: true }));
  if (document.activeElement === points[7]) found.push("the arrow keys do nothing");
  return found;
})()"""


class Browser:
    """A browser without a window, told what to do by its developer protocol."""

    def __init__(self, program, profile):
        commands, answers = os.pipe(), os.pipe()
        # Away from 3 and 4, which the browser reads and writes.
        ours = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (*commands, *answers)]
        for fd in (*commands, *answers):
            os.close(fd)
        read_commands, self._write, self._read, write_answers = ours

        def hand_over():
            os.dup2(read_commands, 3)
            os.dup2(write_answers, 4)

        options = ["--headless=new", "--remote-debugging-pipe", "--hide-scrollbars"]
        options += ["--no-first-run", "--disable-gpu", "--disable-dev-shm-usage"]
        options += ["--disable-background-networking", f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")
        self._process = subprocess.Popen(
            [program, *options, "about:blank"],
            preexec_fn=hand_over,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        self._buffer, self._number, self._session = b"", 0, None
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        self._process.terminate()
        self._process.wait(10)

    def _receive(self):
        while b"\0" not in self._buffer:
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise RuntimeError("the browser has ended")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def open(self, address):
        self.events.clear()
        self.call("Page.navigate", url=address)
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._receive())

    def run(self, script, **constants):
        for name, value in constants.items():
            script = script.replace(name, json.dumps(value))
        answer = self.call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def resize(self, width, height=900):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def picture(self, file):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        file.write_bytes(base64.b64decode(data))


class Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass


def faults_of_loading(events, base):
    """What went wrong while a page was loaded, by the browser's events."""
    for event in events:
        params = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                address = params["request"]["url"]
                if not address.startswith((base, "data:", "blob:", "about:")):
                    yield f"asks another site: {address}"
            case "Network.responseReceived" if params["response"]["status"] >= 400:
                yield f"{params['response']['status']}: {params['response']['url']}"
            case "Runtime.exceptionThrown":
                yield f"error: {params['exceptionDetails']['text']}"
            case "Runtime.consoleAPICalled" if params["type"] == "error":
                yield f"error: {params['args'][0].get('value')}"


def faults_of_pages(browser, base, pages):
    for page in pages:
        browser.resize(WIDTHS[0])
        browser.open(f"{base}/{page}")
        # Lists that are made by the builder have no text of their own to describe.
        written = not page.startswith(
            ("_modules/", "genindex", "search", "py-modindex")
        )
        for width in WIDTHS:
            browser.resize(width)
            for fault in browser.run(LOOK, HEAD=written):
                yield f"{page}, {width} px: {fault}"
        for fault in faults_of_loading(browser.events, base):
            yield f"{page}: {fault}"
        if page in SAMPLE:
            for theme in ("light", "dark"):
                for fault in browser.run(CONTRAST, THEME=theme):
                    yield f"{page}: {fault}"


def faults_of_copying(browser, base, pages):
    for page, prompt in (("get_started/first_steps.html", ">>> "),):
        if page not in pages:
            continue
        browser.open(f"{base}/{page}")
        text = browser.run(COPY, PROMPT=prompt)
        if not text or prompt in text:
            yield f"{page}: the copy button copies {text!r}"


def faults_of_searching(browser, base, pages):
    for query, accepted in SEARCHES.items():
        browser.open(f"{base}/search.html?q={quote(query)}")
        end = time.monotonic() + 10
        while len(found := list(dict.fromkeys(browser.run(RESULTS)))) < 3:
            if browser.run(FINISHED) or time.monotonic() > end:
                break
            time.sleep(0.05)
        if not {*accepted} & {*found[:3]}:
            yield f"search {query!r} finds {', '.join(found[:3]) or 'nothing'}"


def faults_of_the_playground(browser, base, pages):
    page = "understand/playground.html"
    if page in pages:
        browser.open(f"{base}/{page}")
        for fault in browser.run(PLAY):
            yield f"{page}: {fault}"


def take_pictures(browser, base, pages, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for page in [p for p in SAMPLE if p in pages]:
        browser.open(f"{base}/{page}")
        for width in WIDTHS:
            browser.resize(width, 1100)
            for theme in ("light", "dark"):
                browser.run(f"document.documentElement.dataset.theme = '{theme}'")
                name = page.removesuffix(".html").replace("/", "-")
                browser.picture(folder / f"{name}-{width}-{theme}.png")


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER")
    options = parser.parse_args(arguments)
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print("no Chromium is installed: the site was not looked at in a browser")
        return False
    site = options.site.resolve()
    pages = sorted(p.relative_to(site).as_posix() for p in site.rglob("*.html"))
    pages = [page for page in pages if not page.startswith("_static/")]
    if not pages:
        raise SystemExit(f"a built site must lie in the folder. Got none in {site}.")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    start, faults = time.monotonic(), []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        try:
            for check in (
                faults_of_pages,
                faults_of_copying,
                faults_of_searching,
                faults_of_the_playground,
            ):
                faults += check(browser, base, pages)
            if options.screenshots:
                take_pictures(browser, base, pages, options.screenshots)
        finally:
            browser.close()
            server.shutdown()
    seconds = time.monotonic() - start
    print("\n".join([*faults, f"{len(faults)} faults on {len(pages)} pages"]), end="")
    print(f", {len(SEARCHES)} searches ({seconds:.0f} s)")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
