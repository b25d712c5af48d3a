"""`streamline remove` and `streamline rename`: what is kept of a block, and what is refused."""

from __future__ import annotations

from streamline.state.store import DeadLetter
from tests.cli.conftest import Shop


def refuse(shop: Shop, *, destination: str | None = None) -> None:
    letter = DeadLetter(
        pipeline="shop", block="load", stream="a", run_id="r", record="{}", error="odd", stage="validate"
    )
    letter.destination = destination
    store = shop.store()
    store.save("shop", "load", "r", [], [letter])
    store.close()


def values(shop: Shop, block: str) -> dict[str, str]:
    store = shop.store()
    found = {stream: bookmark.value for stream, bookmark in store.bookmarks("shop", block).items()}
    store.close()
    return found


def test_a_renamed_source_keeps_its_positions_and_prints_the_change(shop: Shop) -> None:
    shop.save("r1", a="1", b="2")
    result = shop("rename", "load", "reader", "--pipeline", "shop")
    assert "+++ pipelines/shop/metadata.yaml" in result.stdout
    assert "Renamed data_loaders/load.yaml to data_loaders/reader.yaml" in result.stdout
    assert "reader has the 2 positions of load" in result.stdout
    assert (values(shop, "load"), values(shop, "reader")) == ({}, {"a": "1", "b": "2"})


def test_a_block_that_was_renamed_in_an_editor_gets_its_positions_by_the_command(shop: Shop) -> None:
    shop.save("r1", a="1")
    metadata = shop.root / "pipelines/shop/metadata.yaml"
    metadata.write_text(metadata.read_text().replace('"load"', '"reader"'))
    (shop.root / "data_loaders/load.yaml").rename(shop.root / "data_loaders/reader.yaml")
    before = metadata.read_text()
    shop("rename", "load", "reader")
    assert metadata.read_text() == before
    assert values(shop, "reader") == {"a": "1"}
    assert "'load'" in shop.refuses("graph.unknown_block", "rename", "load", "reader")


def test_a_name_that_has_positions_of_its_own_is_refused(shop: Shop) -> None:
    shop.save("r1", a="1")
    shop.save("r0", block="reader", b="2")
    shop("rename", "load", "reader", code=2)
    assert (values(shop, "load"), values(shop, "reader")) == ({"a": "1"}, {"b": "2"})
    assert (shop.root / "data_loaders/load.yaml").exists()


def test_a_rename_that_fails_keeps_the_positions(shop: Shop) -> None:
    shop.save("r1", a="1")
    shop("rename", "load", "export", code=2)
    assert values(shop, "load") == {"a": "1"}


def test_a_source_whose_name_is_in_the_rows_of_its_destination_is_renamed_with_force(shop: Shop) -> None:
    (shop.root / "data_exporters/export.yaml").write_text("destination: target-x\nsource_column: true\n")
    assert "source_column" in shop.refuses("block.in_use", "rename", "load", "reader")
    shop("rename", "load", "reader", "--force")


def test_a_removed_source_reads_from_the_start_when_it_is_added_again(shop: Shop) -> None:
    shop.save("r1", a="1")
    shop("remove", "load", code=2)  # the destination uses it
    result = shop("remove", "load", "--force")
    assert "Reset the 1 position of load" in result.stdout
    assert values(shop, "load") == {}
    shop("state", "rollback", "shop", "--block", "load")
    assert values(shop, "load") == {"a": "1"}


def test_a_block_with_dead_letters_is_removed_only_with_force(shop: Shop) -> None:
    refuse(shop, destination="export")
    shop("remove", "export", code=2)
    assert "Kept 1 dead letter" in shop("remove", "export", "--force").stdout
    assert len(shop.json("dead-letters", "list", "shop")) == 1


def test_a_block_of_a_running_pipeline_is_neither_renamed_nor_removed(shop: Shop) -> None:
    store = shop.store()
    with store.acquire_lease("shop", "run-1"):
        shop("rename", "load", "reader", code=1)
        shop("remove", "load", "--force", code=1)
    store.close()
    assert (shop.root / "data_loaders/load.yaml").exists()
