"""The last of the way to the target, when training under ``sparsity.control=dual`` has ended."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pytorch_lightning import LightningDataModule, Trainer

from aaa.control import NEAR_ENOUGH, settle_gates, settle_level
from aaa.objective import gate_shares
from aaa.sparse import gate_parameters, lower_gates
from aaa.training.module import Settled, SparseTraining

log = logging.getLogger(__name__)


def settle(
    trainer: Trainer, module: SparseTraining, data: LightningDataModule, lengths: Sequence[int]
) -> None:
    """Moves the level of all gates until rho on the development set is at its target.

    Where no level is near it, because a few gates hold many cells, single ones are turned too.

    Training sees training texts, and a development set differs from them in more than its lengths:
    on STS-B texts of the same length end up to 2 points more or less sparse. Labels are not used.

    What came of it is ``module.settled`` then; None under another control, which leaves rho where
    training does.

    Args:
        trainer: which has trained.
        module: what it has trained.
        data: with the development set.
        lengths: in tokens, of its texts.
    """
    control = module.control
    if control is None or control.settings.control != "dual":
        return

    def rho() -> float:
        trainer.validate(module, data, verbose=False)
        return module.rho

    module.silent = True
    aim = control.settings.aim
    lowered, trained, reached = settle_level(
        list(gate_parameters(module.model)),
        lambda by: lower_gates(module.model, by),
        rho,
        aim,
    )
    turned = 0
    if abs(aim - reached) > NEAR_ENOUGH:
        turned = settle_gates(gate_shares(module.model, lengths), rho, reached, aim)
    module.silent = False
    module.settled = Settled(trained, lowered, turned)
    log.info(
        "training ended at rho %.1f %%: logits lowered by %.2g%s",
        100 * trained,
        lowered,
        f", single gates turned: {turned}" if turned else "",
    )
