"""Files that are whole or absent."""

from __future__ import annotations

from medmae.files import atomic_path


def test_the_longest_names_that_a_file_system_takes_are_written(tmp_path):
    path = tmp_path / f"{'é' * 124}.json"  # 253 bytes
    with atomic_path(path) as temporary:
        assert temporary.name.endswith(".json") and temporary.parent == tmp_path
        temporary.write_text("{}")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
