"""Where a start keeps what the workers compile."""

from launcher.commands.serve import kernel_cache


def test_kernels_are_kept_in_the_users_cache():
    assert kernel_cache({"HOME": "/home/me"}) == "/home/me/.cache/millrace/kernels"
    assert (
        kernel_cache({"HOME": "/home/me", "XDG_CACHE_HOME": "/var/x"}) == "/var/x/millrace/kernels"
    )


def test_without_a_home_there_is_no_such_place():
    assert kernel_cache({}) is None
    assert kernel_cache({"HOME": "", "XDG_CACHE_HOME": ""}) is None
