"""The switch that has models read texts whole."""

from promptfuse._utils.prefix_cache import disable_prefix_cache, prefix_cache_disabled


def test_it_ends_with_its_block():
    assert not prefix_cache_disabled()
    with disable_prefix_cache():
        assert prefix_cache_disabled()
    assert not prefix_cache_disabled()
