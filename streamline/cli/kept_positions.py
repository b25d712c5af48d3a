"""Changes of positions that sources keep themselves: what is shown of them is changed, then the sources follow."""

from __future__ import annotations

from streamline.flow.items import FORGOTTEN
from streamline.pipeline.reader import load_pipeline
from streamline.project.project import Project
from streamline.state.store import Bookmark, BookmarkSave, Lease, Store


class KeptPositions:
    """The positions of a pipeline's sources that keep them themselves, as they are shown before a change.

    Raises:
        ConfigError: the pipeline cannot be planned.
    """

    def __init__(self, project: Project, store: Store, pipeline: str) -> None:
        self._project = project
        self._store = store
        self._pipeline = pipeline
        self._before: dict[str, dict[str, Bookmark]] = {}
        if pipeline not in project.pipelines():
            return
        self._model = load_pipeline(project, pipeline)
        if not self._model.moves_messages:
            return
        from streamline.execution.streaming.kept_positions import self_kept

        self._before = {uuid: store.bookmarks(pipeline, uuid) for uuid in self_kept(project, self._model)}

    def set_changed(self, lease: Lease) -> None:
        """Set what was changed since where the sources keep it; if that fails, what is shown is as it was.

        Raises:
            StreamlineError: it cannot be set.
        """
        changed = {uuid: parts for uuid, old in self._before.items() if (parts := self._changed(uuid, old))}
        if not changed:
            return
        from streamline.execution.streaming.kept_positions import set_kept

        try:
            set_kept(self._project, self._model, changed)
        except BaseException:
            for uuid in changed:
                old = self._before[uuid].values()
                shown = [BookmarkSave(stream=mark.stream, value=mark.value, sinks=mark.sinks) for mark in old]
                self._store.import_state(self._pipeline, uuid, shown, run_id=lease.run_id, replace=True)
            raise

    def _changed(self, uuid: str, old: dict[str, Bookmark]) -> dict[str, bytes]:
        new = self._store.bookmarks(self._pipeline, uuid)
        parts = {
            key: mark.value.encode() for key, mark in new.items() if key not in old or old[key].value != mark.value
        }
        return parts | dict.fromkeys(old.keys() - new.keys(), FORGOTTEN)
