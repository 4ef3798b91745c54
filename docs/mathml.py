"""Mathematics as MathML, which browsers draw themselves: no script and no network."""

import re
from collections.abc import Callable

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

# TeX sizes a delimiter by \big whether it opens or closes; docutils knows the two halves only.
_BIG = re.compile(r"\\([bB]igg?)(?![a-zA-Z])\s*(\\?[^a-zA-Z\s])(?=([\^_])?)")
_HALF = re.compile(r"frac\s*(\d)(\d)")  # docutils would read the 12 of \frac12 as one number
_APPLY = re.compile(r"<mo>&ApplyFunction;</mo>(?!\s*<mo[^>]*>\()")
_THIN = '<mspace width="0.17em"></mspace>'


def mathml(tex: str, block: bool) -> str:
    r"""MathML of LaTeX; several lines are aligned.

    >>> mathml(r"\Big[x\Big]", False).startswith("<math")
    True
    """
    tex = _BIG.sub(_sized, tex).replace(r"\dots", r"\ldots").replace(r"\textstyle", "").strip()
    tex = _HALF.sub(r"frac{\1}{\2}", tex)
    if block and r"\\" in tex and r"\begin" not in tex:
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    # Browsers leave no room after the name of a function; TeX does, unless a bracket follows.
    return _APPLY.sub(_THIN, latex2mathml.tex2mathml(tex, as_block=block))


def _sized(match: re.Match) -> str:
    side = "r" if match[3] or match[2].endswith((")", "]", "}")) else "l"
    return rf"\{match[1]}{side}{match[2]}"


def _visit(block: bool) -> Callable[[HTML5Translator, nodes.Element], None]:
    def visit(self: HTML5Translator, node: nodes.Element) -> None:
        try:
            body = mathml(node.astext(), block)
        except MathError as error:
            logger.warning("cannot set %r: %s", node.astext(), error, location=node)
            body = f"<code>{self.encode(node.astext())}</code>"
        tag = "div" if block else "span"
        self.body.append(f'<{tag} class="math notranslate">{body}</{tag}>')
        raise nodes.SkipNode

    return visit


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer and choose it."""
    app.add_html_math_renderer("mathml", (_visit(False), None), (_visit(True), None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
