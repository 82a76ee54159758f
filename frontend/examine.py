"""``python -m frontend.examine``: answers a ``TextQuestion`` with a ``TextExamination``.

A process of its own, run by ``millrace doctor``. Loads a model's tokenizer and chat template as a
front end does at its start; starts nothing.
"""

import sys

import msgspec

from common.errors import StartupError
from common.examination import TextExamination, TextQuestion
from frontend.text.template import ChatTemplate
from frontend.text.tokenizer import Tokenizer


def examine(question: TextQuestion) -> TextExamination:
    """Never raises for what is wrong with the model's files."""
    places = question.model_dir, question.tokenizer_config_path
    try:
        Tokenizer.load(*places)
        template = ChatTemplate.load(*places)
    except StartupError as error:
        return TextExamination(problem=str(error))
    return TextExamination(has_template=template is not None)


def main() -> None:
    """Read, examine, write."""
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=TextQuestion)
    sys.stdout.buffer.write(msgspec.json.encode(examine(question)))


if __name__ == "__main__":
    main()
