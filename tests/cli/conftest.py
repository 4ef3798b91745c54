"""The command line, called in this process."""

import pytest

from densekit.cli import main


@pytest.fixture
def call(capsys):
    """Call ``densekit``; return the exit status and the output."""

    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        return (caught.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def done(call):
    """Call ``densekit``, which must succeed; return standard output."""

    def done(*words):
        status, out, err = call(*words)
        assert status == 0, err
        return out

    return done


@pytest.fixture
def refused(call):
    """Call ``densekit``, which must fail; return the line of the error."""

    def refused(*words):
        status, out, err = call(*words)
        assert (status, out) == (2, "")
        assert err.startswith("densekit: ")
        assert err.count("\n") == 1
        return err

    return refused
