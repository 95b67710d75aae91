"""A trained network as a function: stored rows -> probabilities or values."""

import torch
from torch import Tensor

from mlpcli.data import Split
from mlpcli.evaluation import Inference, chunk_rows, probabilities
from mlpcli.network import Network


class Predictor:
    """From stored rows to answers, in buffers that are made once.

    Args:
        network: trained; its model is put into evaluation mode.

    Attributes:
        dtype: of the answers: of probabilities that of the parameters, and of values float64, as targets far from
            0 need.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.dtype = network.dtype if network.target_scale is None else torch.float64
        network.model.eval()
        self._rows = chunk_rows(network.model)
        self._prepared = torch.empty(
            (self._rows, network.description.features), dtype=network.dtype, device=network.device
        )
        self._outputs_of = Inference(network.model, self._rows, network.precision == "bfloat16")

    def __call__(self, stored: Tensor) -> Tensor:
        """Answers for rows as splits store them, (n, columns, pixels or features).

        Returns:
            On the CPU, of type `dtype`: probabilities (n, classes), or values (n, outputs) in the targets' units.
        """
        network = self.network
        answers = torch.empty((len(stored), network.description.outputs), dtype=self.dtype)
        for rows, out in zip(stored.split(self._rows), answers.split(self._rows), strict=True):
            prepared = self._prepared[: len(rows)]
            outputs = self._outputs_of(network.preprocessing.into(rows.to(network.device), prepared))
            if network.target_scale is None:
                out.copy_(probabilities(network.loss.name, outputs))
            else:
                out.copy_(network.target_scale.restore(outputs))
        return answers

    def of(self, split: Split) -> Tensor:
        """Answers for all samples of a split."""
        return torch.cat([self(stored) for stored, _ in split.chunks(self._rows)])
