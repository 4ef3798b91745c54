"""The command line, called in this process."""

import pytest

from densekit.cli import main


@pytest.fixture
def call(capsys):
    """Call ``densekit`` with words; the exit status and what it wrote."""

    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        return (caught.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def done(call):
    """The same where it must go well: what it wrote on standard output."""

    def done(*words):
        status, out, err = call(*words)
        assert status == 0, err
        return out

    return done


@pytest.fixture
def refused(call):
    """The same where the call or the data are wrong: the one line that says so."""

    def refused(*words):
        status, out, err = call(*words)
        assert (status, out) == (2, "")
        assert err.startswith("densekit: ")
        assert err.count("\n") == 1
        return err

    return refused
