"""The last of the way to the target, when training under ``sparsity.control=dual`` has ended."""

from __future__ import annotations

import logging

from pytorch_lightning import LightningDataModule, Trainer

from aaa.control import settle_level
from aaa.sparse import gate_parameters, lower_gates
from aaa.training.module import Settled, SparseTraining

log = logging.getLogger(__name__)


def settle(trainer: Trainer, module: SparseTraining, data: LightningDataModule) -> None:
    """Moves the level of all gates until rho on the development set is at its target.

    Training sees training texts, and a development set differs from them in more than its lengths:
    on STS-B texts of the same length end up to 2 points more or less sparse. Labels are not used.

    What came of it is ``module.settled`` then; None under another control, which leaves rho where
    training does.
    """
    control = module.control
    if control is None or control.settings.control != "dual":
        return

    def rho() -> float:
        trainer.validate(module, data, verbose=False)
        return module.rho

    module.silent = True
    lowered, trained = settle_level(
        list(gate_parameters(module.model)),
        lambda by: lower_gates(module.model, by),
        rho,
        control.settings.aim,
    )
    module.silent = False
    module.settled = Settled(trained, lowered)
    log.info("training ended at rho %.1f %%: logits lowered by %.2g", 100 * trained, lowered)
