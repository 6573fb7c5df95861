"""What stands behind the listeners for operators and kubelets?  The pages, told whom to tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger

from proxy.adapters.watch import Watcher
from proxy.admin.api import admin_application, observe_application
from proxy.admin.ports import Operations
from proxy.admin.server import PagesRunner


def runners(
    operations: Operations,
    *,
    token: Callable[[], bytes | None],
    watcher: Watcher,
    log: FilteringBoundLogger,
    observed: bool,
) -> dict[str, PagesRunner]:
    """The pages by the names of their sockets; those for kubelets only if they are `observed`."""

    def audit(change: dict[str, Any]) -> None:
        log.warning("operator_changed", **change)

    def crashed(error: BaseException | None) -> None:
        log.error("page_crashed", exc_info=error)

    admin = admin_application(operations, token=token, audit=audit, refused=watcher.admin_refused)
    made = {"admin": PagesRunner(admin, crashed=crashed)}
    if observed:
        made["observe"] = PagesRunner(observe_application(operations), crashed=crashed)
    return made
