"""Turns CUDA C++ into C++ that a host compiler takes.

Three things in a kernel file are not C++ and cannot be had by macros; they are rewritten, in place
and without moving a line:

    kernel<T><<<grid, block, bytes, stream>>>(a, b)
        configure(kernel<T>, grid, block, bytes, stream)(a, b)

    __shared__ T tile[32][33];
        a reference to storage of the running block, of type T[32][33], known by the name "tile"

    extern __shared__ T memory[];
        a pointer to the dynamic shared memory of the running block

A check of __launch_bounds__ is put into the kernel's body, and the keyword __noinline__ is
replaced. A #line directive makes compilers and debuggers speak of the original.

    python translate.py SOURCE --name csrc/kernels/cuda/gather.cu --output OUTPUT
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

_TOKEN = re.compile(
    r"""
    (?P<trivia>\s+|//(?:\\\n|[^\n])*|/\*.*?\*/)
  | (?P<text>(?:u8|[uUL])?R"(?P<delimiter>[^()\\\s]{0,16})\(.*?\)(?P=delimiter)"
           |(?:u8|[uUL])?"(?:\\.|[^"\\\n])*"
           |(?:u8|[uUL])?'(?:\\.|[^'\\\n])*')
  | (?P<number>\.?\d(?:[eEpP][+-]|'[\w]|[\w.])*)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<mark>::|->|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_DIRECTIVE = re.compile(r"#(?:\\\n|/\*.*?\*/|[^\n])*", re.DOTALL)

_OPENING = {"(": ")", "[": "]", "{": "}"}
_CLOSING = {closing: opening for opening, closing in _OPENING.items()}
_ALIGNMENT = ("__align__", "alignas")


class TranslationError(Exception):
    """A construct that cannot be translated, with the place where it stands."""


@dataclass
class Token:
    kind: str  # trivia, directive, text, number, name or mark
    text: str
    line: int


@dataclass
class Declarator:
    name: str
    type_text: str  # with the pointer marks of this declarator
    extent: str  # "[32][33]", or empty


def tokenize(source: str) -> list[Token]:
    """All of the source, in order; comments and blanks are trivia."""
    tokens: list[Token] = []
    position, line = 0, 1
    at_line_start = True
    while position < len(source):
        kind = "directive"
        match = _DIRECTIVE.match(source, position) if at_line_start else None
        if match is None:
            match = _TOKEN.match(source, position)
            assert match is not None  # the last alternative takes anything
            kind = next(k for k, v in match.groupdict().items() if v is not None)
        text = match[0]
        tokens.append(Token(kind, text, line))
        position = match.end()
        line += text.count("\n")
        at_line_start = kind == "trivia" and (at_line_start or "\n" in text)
    return tokens


class Translator:
    """One file. Edits tokens in place; the concatenation of their texts is the result."""

    def __init__(self, source: str, name: str) -> None:
        self.name = name
        self.tokens = tokenize(source)

    def translate(self) -> str:
        for token in self.tokens:
            if token.kind == "directive" and re.search(r"<<<|\b__shared__\b", token.text):
                raise self.error(token, "launches and __shared__ inside a macro are not translated")
        self._translate_shared()
        self._translate_launches()
        self._check_launch_bounds()
        for token in self.tokens:
            if token.kind == "name" and token.text == "__noinline__":
                token.text = "__attribute__((noinline))"
        return f'#line 1 "{self.name}"\n' + "".join(token.text for token in self.tokens)

    def error(self, token: Token, message: str) -> TranslationError:
        return TranslationError(f"{self.name}:{token.line}: {message}")

    # --- moving about -----------------------------------------------------------------------------

    def _is(self, index: int, *texts: str) -> bool:
        return 0 <= index < len(self.tokens) and self.tokens[index].text in texts

    def _next(self, index: int, step: int = 1) -> int:
        """The neighbour that is not trivia; past the end if there is none."""
        index += step
        while 0 <= index < len(self.tokens) and self.tokens[index].kind in ("trivia", "directive"):
            index += step
        return index

    def _matching(self, index: int) -> int:
        """The bracket that belongs to the one at index, in either direction."""
        step = 1 if self.tokens[index].text in _OPENING else -1
        deeper, shallower = (_OPENING, _CLOSING) if step == 1 else (_CLOSING, _OPENING)
        depth = 0
        at = index
        while 0 <= at < len(self.tokens):
            token = self.tokens[at]
            if token.kind == "mark":
                depth += (token.text in deeper) - (token.text in shallower)
                if depth == 0:
                    return at
            at += step
        raise self.error(self.tokens[index], f"no partner for {self.tokens[index].text!r}")

    def _text(self, begin: int, end: int) -> str:
        """Source text of tokens [begin, end) on one line, comments left out."""
        parts = [" " if token.kind == "trivia" else token.text for token in self.tokens[begin:end]]
        return re.sub(r" +", " ", "".join(parts)).strip()

    # --- launches ---------------------------------------------------------------------------------

    def _translate_launches(self) -> None:
        for index in range(len(self.tokens)):
            if not self._is_triple(index, "<"):
                continue
            end = self._end_of_configuration(index + 3)
            if not self._is(self._next(end + 2), "("):
                raise self.error(self.tokens[end], "a launch needs its arguments in parentheses")
            start = self._start_of_kernel(index)
            for at, text in ((index, ", "), (end, ")")):
                self.tokens[at].text = text
                self.tokens[at + 1].text = self.tokens[at + 2].text = ""
            first = self.tokens[start]
            first.text = "::deformops::simulation::configure(" + first.text

    def _is_triple(self, index: int, mark: str) -> bool:
        triple = self.tokens[index : index + 3]
        return len(triple) == 3 and all(t.kind == "mark" and t.text == mark for t in triple)

    def _end_of_configuration(self, index: int) -> int:
        start = self.tokens[index - 3]
        while index < len(self.tokens):
            if self._is_triple(index, ">"):
                return index
            if self.tokens[index].kind == "mark" and self.tokens[index].text in _OPENING:
                index = self._matching(index)
            index += 1
        raise self.error(start, "<<< without >>>")

    def _start_of_kernel(self, index: int) -> int:
        """Of the expression before <<<: names, template arguments, calls, members, indices."""
        start = index
        at = self._next(index, -1)
        while True:
            if self._is(at, ">"):
                at = self._next(self._matching_angle(at), -1)
            elif self._is(at, ")", "]"):
                at = self._matching(at)
                start = at
                before = self._next(at, -1)
                if self._is(before, ">", ")", "]") or self._is_name(before):
                    at = before
                    continue
                return start
            if not self._is_name(at):
                raise self.error(self.tokens[index], "no kernel before <<<")
            start = at
            at = self._next(at, -1)
            if self._is(at, "template"):
                start, at = at, self._next(at, -1)
            if not self._is(at, "::", "->", "."):
                return start
            start, at = at, self._next(at, -1)
            if not (self._is_name(at) or self._is(at, ">", ")", "]")):
                return start  # a leading ::

    def _is_name(self, index: int) -> bool:
        keywords = ("return", "else", "do", "case", "template")
        return (
            0 <= index < len(self.tokens)
            and self.tokens[index].kind == "name"
            and self.tokens[index].text not in keywords
        )

    def _matching_angle(self, index: int) -> int:
        depth = 0
        at = index
        while at >= 0:
            token = self.tokens[at]
            if token.kind == "mark":
                if token.text in _CLOSING:
                    at = self._matching(at)
                elif token.text in ("<", ">"):
                    depth += 1 if token.text == ">" else -1
                    if depth == 0:
                        return at
            at -= 1
        raise self.error(self.tokens[index], "no partner for '>'")

    # --- launch bounds ----------------------------------------------------------------------------

    def _check_launch_bounds(self) -> None:
        for index, token in enumerate(self.tokens):
            if token.kind != "name" or token.text != "__launch_bounds__":
                continue
            opening = self._next(index)
            closing = self._matching(opening)
            bounds = self._text(opening + 1, closing)
            at = closing + 1
            while at < len(self.tokens) and not self._is(at, "{", ";"):
                at = self._matching(at) + 1 if self._is(at, "(", "[") else at + 1
            if self._is(at, "{"):  # not a mere declaration
                self.tokens[at].text += f" ::deformops::simulation::check_launch_bounds({bounds});"

    # --- shared memory ----------------------------------------------------------------------------

    def _translate_shared(self) -> None:
        scopes: list[bool] = []  # for each open brace, whether it is inside a function
        for index, token in enumerate(self.tokens):
            if token.kind == "mark" and token.text == "{":
                scopes.append(any(scopes) or self._opens_function(index))
            elif token.kind == "mark" and token.text == "}" and scopes:
                scopes.pop()
            elif token.kind == "name" and token.text == "__shared__":
                if not any(scopes):
                    raise self.error(token, "__shared__ outside of a function")
                self._translate_declaration(index)

    def _opens_function(self, brace: int) -> bool:
        """Whether a brace opens a function's body, not a namespace, a class or the like."""
        at = self._next(brace, -1)
        while at >= 0 and not self._is(at, ";", "{", "}"):
            if self._is(at, ")"):
                return True
            if self._is(at, "namespace", "struct", "class", "union", "enum"):
                return False
            at = self._next(at, -1)
        return False

    def _translate_declaration(self, index: int) -> None:
        token = self.tokens[index]
        begin = index
        before = self._next(begin, -1)
        while before >= 0 and not self._is(before, ";", "{", "}", ":"):
            begin, before = before, self._next(before, -1)
        end = index
        while end < len(self.tokens) and not self._is(end, ";"):
            if self.tokens[end].kind == "mark" and self.tokens[end].text in _OPENING:
                end = self._matching(end)
            end += 1
        if end == len(self.tokens):
            raise self.error(token, "__shared__ declaration without an end")

        external, alignment, kept = self._strip_specifiers(begin, end)
        declarators = self._declarators(kept, token)
        if external:
            text = self._dynamic(declarators, alignment, token)
        else:
            text = "; ".join(self._static(declarator, alignment) for declarator in declarators)
        lines = sum(t.text.count("\n") for t in self.tokens[begin:end])
        for t in self.tokens[begin:end]:
            t.kind, t.text = "trivia", ""
        self.tokens[begin].kind = "text"
        self.tokens[begin].text = text + "\n" * lines  # the final ; is still there

    def _strip_specifiers(self, begin: int, end: int) -> tuple[bool, str, list[int]]:
        """Whether it is extern, its alignment ("0" when none is given), and the other tokens."""
        external, alignment = False, "0"
        kept: list[int] = []
        at = begin
        while at < end:
            if self._is(at, "extern"):
                external = True
            elif self._is(at, *_ALIGNMENT):
                opening = self._next(at)
                closing = self._matching(opening)
                if alignment != "0":
                    raise self.error(self.tokens[at], "more than one alignment")
                alignment = self._text(opening + 1, closing)
                at = closing
            elif not self._is(at, "__shared__", "static") and self.tokens[at].kind != "directive":
                kept.append(at)
            at += 1
        return external, alignment, kept

    def _declarators(self, kept: list[int], place: Token) -> list[Declarator]:
        significant = [i for i in kept if self.tokens[i].kind != "trivia"]
        name_at = self._first_name(significant, place)
        base_end = significant.index(name_at)
        while base_end > 0 and self._is(significant[base_end - 1], "*"):
            base_end -= 1
        base = self._joined(kept, significant[0], significant[base_end])
        if not base:
            raise self.error(place, "__shared__ declaration without a type")

        declarators = []
        rest = significant[base_end:]
        while rest:
            stars = 0
            while self._is(rest[stars], "*"):
                stars += 1
            name = self.tokens[rest[stars]]
            stop = stars + 1
            while stop < len(rest) and not self._is(rest[stop], ","):
                if not self._is(rest[stop], "["):
                    raise self.error(name, "__shared__ variables cannot be initialized")
                stop = rest.index(self._matching(rest[stop])) + 1
            extent = ""
            if stop > stars + 1:
                extent = self._joined(kept, rest[stars + 1], rest[stop - 1] + 1)
            declarators.append(Declarator(name.text, base + "*" * stars, extent))
            rest = rest[stop + 1 :]
        return declarators

    def _first_name(self, significant: list[int], place: Token) -> int:
        """The declared name: the last name before the first [ or comma outside of template <>."""
        depth = 0
        for position, index in enumerate(significant):
            if self._is(index, "<", "("):
                depth += 1
            elif self._is(index, ">", ")"):
                depth -= 1
            last = position + 1 == len(significant)
            ends = not last and self._is(significant[position + 1], "[", ",", "=", "{")
            if depth == 0 and self.tokens[index].kind == "name" and (ends or last):
                return index
        raise self.error(place, "__shared__ declaration without a name")

    def _joined(self, kept: list[int], begin: int, end: int) -> str:
        parts = [
            " " if self.tokens[i].kind == "trivia" else self.tokens[i].text
            for i in kept
            if begin <= i < end
        ]
        return re.sub(r" +", " ", "".join(parts)).strip()

    @staticmethod
    def _static(declarator: Declarator, alignment: str) -> str:
        name = declarator.name
        return (
            f"static char {name}_shared_identity; "
            f"using {name}_shared_type = {declarator.type_text}{declarator.extent}; "
            f"auto& {name} = ::deformops::simulation::shared_variable<{name}_shared_type>("
            f'{name}_shared_identity, "{name}", {alignment})'
        )

    def _dynamic(self, declarators: list[Declarator], alignment: str, place: Token) -> str:
        if len(declarators) != 1 or declarators[0].extent.replace(" ", "") != "[]":
            raise self.error(place, "extern __shared__ declares one array of unknown size")
        name, type_text = declarators[0].name, declarators[0].type_text
        return (
            f"{type_text}* const {name} = "
            f'::deformops::simulation::dynamic_shared_array<{type_text}>("{name}", {alignment})'
        )


def translate(source: str, name: str) -> str:
    """The C++ of a CUDA source; `name` is what diagnostics are to call it."""
    return Translator(source, name).translate()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--name", required=True, help="path to show in diagnostics")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        text = translate(options.source.read_text(), options.name)
    except TranslationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
