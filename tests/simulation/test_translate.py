"""The translator: what it rewrites, what it leaves alone, what it refuses."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "csrc" / "simulation" / "translate.py"
_spec = importlib.util.spec_from_file_location("translate", SOURCE)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules["translate"] = _module
_spec.loader.exec_module(_module)

CONFIGURE = "::deformops::simulation::configure("
SHARED = "::deformops::simulation::shared_variable"


def translate(source: str) -> str:
    head, _, text = _module.translate(source, "a/file.cu").partition("\n")
    assert head == '#line 1 "a/file.cu"'
    assert text.count("\n") == source.count("\n")  # no line moves
    return str(text)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("f<<<1, 2>>>(a, b);", f"{CONFIGURE}f, 1, 2)(a, b);"),
        ("f <<< g, b, s, st >>> ();", f"{CONFIGURE}f ,  g, b, s, st ) ();"),
        ("::n::f<int, 3><<<g, b>>>(a);", f"{CONFIGURE}::n::f<int, 3>, g, b)(a);"),
        ("n::template f<A<B>><<<g, b>>>(a);", f"{CONFIGURE}n::template f<A<B>>, g, b)(a);"),
        ("f<(3 > 2)><<<g, b>>>();", f"{CONFIGURE}f<(3 > 2)>, g, b)();"),
        ("f<<<dim3(x<y>(1), 2), b>>>();", f"{CONFIGURE}f, dim3(x<y>(1), 2), b)();"),
        ("return pick(n)<<<g, b>>>();", f"return {CONFIGURE}pick(n), g, b)();"),
        ("if (a) this->f[i]<<<g, b>>>();", f"if (a) {CONFIGURE}this->f[i], g, b)();"),
        ("(a ? f : h)<<<g, b>>>();", f"{CONFIGURE}(a ? f : h), g, b)();"),
        ("f<<<g,\n    b>>>(\n  a);", f"{CONFIGURE}f, g,\n    b)(\n  a);"),
    ],
)
def test_launches(source: str, expected: str) -> None:
    assert translate(source) == expected


@pytest.mark.parametrize(
    ("declaration", "type_text", "name", "alignment"),
    [
        ("__shared__ float x;", "float", "x", "0"),
        ("__shared__ float x[3];", "float[3]", "x", "0"),
        ("__shared__ unsigned long long x[N + 1][M];", "unsigned long long[N + 1][M]", "x", "0"),
        ("__shared__ __align__(16) T x[1 << 3];", "T[1 << 3]", "x", "16"),
        ("__align__(kA) __shared__ T x[2];", "T[2]", "x", "kA"),
        ("__shared__ alignas(sizeof(A) * 2) T x[2];", "T[2]", "x", "sizeof(A) * 2"),
        ("static __shared__ n::A<B<3>, 4>::C x[2];", "n::A<B<3>, 4>::C[2]", "x", "0"),
        ("__shared__ typename A<T>::type x[A<T>::n];", "typename A<T>::type[A<T>::n]", "x", "0"),
        ("volatile __shared__ int x[2];", "volatile int[2]", "x", "0"),
        ("__shared__ float* x[2];", "float*[2]", "x", "0"),
        ("__shared__ float /* of */ x // here\n  [2];", "float[2]", "x", "0"),
    ],
)
def test_shared(declaration: str, type_text: str, name: str, alignment: str) -> None:
    text = translate(f"void f() {{ int y; {declaration} g(x); }}")
    assert f"using {name}_shared_type = {type_text};" in text
    assert (
        f"auto& {name} = {SHARED}<{name}_shared_type>("
        f'{name}_shared_identity, "{name}", {alignment})'
    ) in text
    assert "__shared__" not in text
    assert text.startswith("void f() { int y; static char")
    assert text.endswith("; g(x); }")


def test_several_declarators_and_declarations() -> None:
    text = translate("void f() {\n  __shared__ int a[2], *b, c;\n  __shared__ int d;\n}\n")
    for type_text, name in (("int[2]", "a"), ("int*", "b"), ("int", "c"), ("int", "d")):
        assert f"using {name}_shared_type = {type_text};" in text
    assert text.count(SHARED) == 4


def test_dynamic_shared() -> None:
    text = translate("void f() { extern __shared__ __align__(128) unsigned char x[]; }")
    assert text == (
        "void f() { unsigned char* const x = "
        '::deformops::simulation::dynamic_shared_array<unsigned char>("x", 128); }'
    )


def test_launch_bounds_are_checked_in_the_body() -> None:
    text = translate("__global__ void __launch_bounds__(kN, 2) f(int (*a)[3], int b = g()) {\n}\n")
    assert ") {" + " ::deformops::simulation::check_launch_bounds(kN, 2);\n}" in text
    declaration = "__global__ void __launch_bounds__(64) f(int);\n"
    assert translate(declaration) == declaration


@pytest.mark.parametrize(
    "source",
    [
        "// f<<<1, 2>>>() and __shared__ int x;\n",
        "/* __shared__ */ const char* s = \"f<<<1>>>\\\"__shared__\"; char c = '\\'';\n",
        'auto r = R"x(f<<<1>>>(")")x"; int n = 1\'000\'000; a = b << 3 >> 2;\n',
        "template <class T, class U = A<B<T>>> void f(); #not a directive\n",
        "#if __CUDA_ARCH__ >= 800\n#define N(x) \\\n  (x)\n#endif\n",
    ],
)
def test_all_else_stays(source: str) -> None:
    assert translate(source) == source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("int a;\n__shared__ int x;", "a/file.cu:2: __shared__ outside of a function"),
        ("namespace n { extern __shared__ int x[]; }", "outside of a function"),
        ("struct A { __shared__ int x; };", "outside of a function"),
        ("#define F f<<<1, 2>>>()\n", "inside a macro"),
        ("void f() { __shared__ int x = 3; }", "cannot be initialized"),
        ("void f() { extern __shared__ int x[3]; }", "unknown size"),
        ("void f() { __shared__ __align__(8) alignas(16) int x; }", "more than one alignment"),
        ("void f() { k<<<1, 2; }", "<<< without >>>"),
        ("void f() { k<<<1, 2>>>; }", "arguments in parentheses"),
        ("void f() { = <<<1, 2>>>(); }", "no kernel before"),
        ("void f() { (a; }", "no partner"),
    ],
)
def test_refusals(source: str, message: str) -> None:
    with pytest.raises(_module.TranslationError, match=message):
        translate(source + " __launch_bounds__(" if "partner" in message else source)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "k.cu", tmp_path / "out" / "k.cpp"
    source.write_text("void f() { k<<<1, 2>>>(); }\n")
    assert _module.main([str(source), "--name", "k.cu", "--output", str(output)]) == 0
    assert output.read_text() == f'#line 1 "k.cu"\nvoid f() {{ {CONFIGURE}k, 1, 2)(); }}\n'
    source.write_text("__shared__ int x;\n")
    assert _module.main([str(source), "--name", "k.cu", "--output", str(output)]) == 1
    assert "k.cu:1" in capsys.readouterr().err
