"""The method that exports an estimator for other runtimes."""

from __future__ import annotations

import os

from sk_adalora.files import onnx as onnx_files


class ExportsOnnx:
    """An estimator whose predictions another runtime can compute."""

    def export_onnx(
        self,
        folder: str | os.PathLike[str],
        *,
        quantize: str | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write a model that predicts without torch and sk-adalora.

        It is compared with the estimator on a few texts before the folder is put in
        place.

        Parameters
        ----------
        folder : path-like
            Where to write. The folder gets ``model.onnx``, ``tokenizer.json``,
            ``config.json``, a card, and ``run.py``, a program that predicts with
            onnxruntime and tokenizers alone. "~" is the home directory.
        quantize : {"int8"} or None, default=None
            None keeps the weights in float32, whatever `precision` and `quantization`
            are. "int8" rounds them to 8 bits: a file of less than a third of the size,
            whose predictions differ a little.
        overwrite : bool, default=False
            Whether to replace a folder that sk-adalora wrote.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ImportError
            If onnx or onnxruntime is missing.
        ValueError
            If torch cannot export the model, or what it exports predicts something
            else; if `long_text` is not "truncate", `row_format` a function or the
            tokenizer a slow one; if a parameter is wrong, or the pretrained model is
            not the one of `fit`.
        FileExistsError
            If the folder is not empty and `overwrite` is False, or sk-adalora did not
            write it.
        OSError
            If the pretrained model cannot be found, or the folder cannot be written;
            what was there before is still there.
        """
        onnx_files.export_onnx(self, folder, quantize, overwrite)
