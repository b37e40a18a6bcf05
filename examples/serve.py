"""Serve a model over HTTP, and compute texts that arrive together as one batch.

    python examples/serve.py --model FOLDER --port 8000

FOLDER is one of ``save_pretrained`` or of ``export_onnx``. Without it, the program fits
a small model of news headlines. It needs ``pip install "sk-adalora[serve]"``.
"""

import argparse
import asyncio
import json
import runpy
import socket
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field


class Texts(BaseModel):
    texts: list[str] = Field(min_length=1, max_length=256)


class Batcher:
    """Collect texts of several requests, and compute them at once in a thread.

    Parameters
    ----------
    compute : callable
        Takes a list of texts; returns an answer for each.
    most : int
        Texts of a batch, from which on it is full. 1 computes each request alone.
    wait : float
        Seconds to wait for more texts than are there.
    """

    def __init__(self, compute, most, wait):
        self.compute, self.most, self.wait = compute, most, wait
        self.waiting = asyncio.Queue()

    async def answer(self, texts):
        """Return the answers to a request's texts, when their batch is computed."""
        done = asyncio.get_running_loop().create_future()
        await self.waiting.put((texts, done))
        return await done

    async def run(self):
        """Compute batch after batch, until cancelled."""
        while True:
            requests = await self._collect()
            texts = [text for texts, _ in requests for text in texts]
            try:
                answers = iter(await asyncio.to_thread(self.compute, texts))
            except Exception as error:
                for _, done in requests:
                    done.set_exception(error)
                continue
            for texts, done in requests:
                mine = [next(answers) for _ in texts]
                if not done.cancelled():  # the client may have gone
                    done.set_result(mine)

    async def _collect(self):
        requests = [await self.waiting.get()]
        count = len(requests[0][0])
        try:
            async with asyncio.timeout(self.wait):
                while count < self.most:
                    requests.append(await self.waiting.get())
                    count += len(requests[-1][0])
        except TimeoutError:
            pass
        return requests


def make_app(compute, most=32, wait=0.002):
    """Return an application with ``POST /predict`` of ``{"texts": [...]}``."""
    batcher = Batcher(compute, most, wait)

    @asynccontextmanager
    async def running(app):
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()

    app = FastAPI(title="sk-adalora", lifespan=running)

    @app.post("/predict")
    async def predict(request: Texts):
        return {"predictions": await batcher.answer(request.texts)}

    return app


def load(folder):
    """Return a function from texts to predictions, of either kind of folder."""
    if (folder / "model.onnx").exists():
        model = runpy.run_path(str(folder / "run.py"))["Model"](folder)
    else:
        import sk_adalora

        saved = json.loads((folder / "sk_adalora.json").read_text("utf8"))
        model = getattr(sk_adalora, saved["class"]).from_pretrained(folder)

    def compute(texts):
        found = model.predict(texts)
        return found if isinstance(found, list) else found.tolist()

    compute(["The first text takes longer."])
    return compute


def fit_small(folder):
    """Fit a classifier of headlines for a few seconds, and export it."""
    from quickstart import read_headlines

    from sk_adalora import AdaLoraClassifier

    headlines, topics = read_headlines()
    classifier = AdaLoraClassifier(max_steps=40, random_state=0)
    classifier.fit(headlines[::4], topics[::4]).export_onnx(folder)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a folder of a saved estimator")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free one")
    parser.add_argument("--batch", type=int, default=32, help="texts of a full batch")
    parser.add_argument("--wait", type=float, default=2, help="ms to wait for more")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model or Path(scratch) / "headlines"
        if options.model is None:
            fit_small(folder)
        compute = load(folder)
    app = make_app(compute, options.batch, options.wait / 1000)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", options.port))
        listening.listen()  # whoever reads the next line may call
        host, port = listening.getsockname()
        print(f"Serving on http://{host}:{port}/predict", flush=True)
        config = uvicorn.Config(app, log_level="warning")
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
