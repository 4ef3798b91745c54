"""Math as MathML, which browsers render without scripts or network access."""

import re
from collections.abc import Callable

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

# \big applies to opening and closing delimiters in TeX; docutils supports only \bigl and \bigr.
_BIG = re.compile(r"\\([bB]igg?)(?![a-zA-Z])\s*(\\?[^a-zA-Z\s])(?=([\^_])?)")
_HALF = re.compile(r"frac\s*(\d)(\d)")  # docutils parses the 12 of \frac12 as one number.
_APPLY = re.compile(r"<mo>&ApplyFunction;</mo>(?!\s*<mo[^>]*>\()")
_THIN = '<mspace width="0.17em"></mspace>'


def mathml(tex: str, block: bool) -> str:
    r"""Convert LaTeX to MathML; the lines of a formula are aligned.

    >>> mathml(r"\Big[x\Big]", False).startswith("<math")
    True
    """
    tex = _BIG.sub(_sized, tex).replace(r"\dots", r"\ldots").replace(r"\textstyle", "").strip()
    tex = _HALF.sub(r"frac{\1}{\2}", tex)
    if block and r"\\" in tex and r"\begin" not in tex:
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    # TeX adds space after the name of a function unless a bracket follows; browsers do not.
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
    """Register the renderer and select it."""
    app.add_html_math_renderer("mathml", (_visit(False), None), (_visit(True), None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
