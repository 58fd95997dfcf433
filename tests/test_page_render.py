"""The page's files and endpoints without a browser: Markdown to safe HTML, PDFs to text."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from ggufmaker import make_tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import saying

import ggq
from ggq.runtime.server.page import routes
from ggq.runtime.server.page.markdown import render
from ggq.runtime.server.page.mathematics import mathml

PAGE = Path(routes.__file__).parent
SAFE = re.compile(
    "p|h[3-6]|em|strong|s|code|pre|ul|ol|li|blockquote|hr|br|table|thead|tbody|tr|th|td|a|span|div|"
    "math|m(row|i|n|o|text|space|frac|sqrt|root|sub|sup|subsup|under|over|underover|table|tr|td|"
    "style|padded|phantom|enclose|error)"
)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    path = make_tiny_llama(tmp_path_factory.mktemp("tiny") / "t.gguf", n_ctx=256, vocab="bpe")
    with ggq.load(path, threads=1) as model, saying(model, "hi") as client:
        yield client


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def html(text):
    return "".join(block.html for block in render(text))


def plain(text):
    """Return the HTML without the colours of code."""
    return re.sub(r"</?span[^>]*>", "", html(text))


# --- Markdown ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n\n- b", "<ul>\n<li>\n<p>a</p>\n</li>\n<li>\n<p>b</p>\n</li>\n</ul>\n"),  # loose
        ("*a **b** c*", "<p><em>a <strong>b</strong> c</em></p>\n"),
        ("1. a\n\n         code", '<pre data-language=""><code>  code\n'),
        ("    a\n    - b", '<pre data-language=""><code>a\n- b\n</code></pre>\n'),
        ("a_b_c and __init__.py", "<p>a_b_c and <strong>init</strong>.py</p>\n"),
        ("~~a~~", "<p><s>a</s></p>\n"),
        ("# a\n#### b", "<h3>a</h3>\n<h6>b</h6>\n"),
        ("- [x] a\n- [ ] b", '<li class="task done">☑ a</li>\n<li class="task">☐ b</li>'),
        ("|a|b|\n|--|-:|\n|`x\\|y`|2|", '<td><code>x|y</code></td>\n<td class="right">2</td>'),
        ("```py x=1\na < b\n```", '<pre data-language="py"><code>a &lt; b\n</code></pre>\n'),
        ("```no-such\na < b\n```", '<pre data-language="no-such"><code>a &lt; b\n</code></pre>'),
        ("see main.py or example.org", "<p>see main.py or example.org</p>\n"),
        ("<https://a.org> b", '<p><a href="https://a.org" target="_blank" rel="noopener nor'),
        ("https://a.org/x?y=1, z", '">https://a.org/x?y=1</a>, z</p>\n'),
        ("(https://a.org/x_(y).)", '(<a href="https://a.org/x_(y)"'),
        ("[https://a.org](https://b.org)", 'noreferrer">https://a.org</a></p>'),
        ("![cat](https://a.org/c.png)", '<a href="https://a.org/c.png" target="_blank" rel="noop'),
        ("<b>a</b>", "<p>&lt;b&gt;a&lt;/b&gt;</p>\n"),
    ],
)  # fmt: skip
def test_markdown(text, expected):
    assert expected in plain(text)


def test_code_is_coloured():
    found = html("```python\ndef f():\n    return '<'  # note\n```")
    assert '<span class="c-k">def</span>' in found
    assert '<span class="c-c1"># note</span>' in found


def test_blocks_tell_where_they_begin():
    text = "# a\n\nb\nc\n\n- d\n- e\n\n```\nf\n```\n"
    assert [block.line for block in render(text)] == [0, 2, 5, 8]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("$x^2$", "<msup><mi>x</mi><mn>2</mn></msup>"),
        (r"\(a < b\)", "<mo>&lt;</mo>"),
        ("$$\nx\n=\n\n5\n$$", '<div class="math"><math display="block">'),
        (r"\[ \frac{1}{2} \]", "<mfrac>"),
        ("- a\n\n  $$b$$", '<div class="math">'),
        (r"$$\begin{aligned} a &= b \\ c &= d\end{aligned}$$", "<mtr>"),
        (r"$n\log n$", '<mo lspace="0.17em" rspace="0.13em">log</mo>'),
        (r"in a line $$\sqrt 2$$ too", '<math display="inline">'),
    ],
)
def test_mathematics(text, shown):
    assert shown in html(text)


@pytest.mark.parametrize(
    "text",
    [
        "it costs $5 and $10", "$5-$10", r"\$x\$", "`$x$`", "a $ b $ c", "$$", r"\(\)", "$$\nopen",
        r"\[not", "```\n$x$\n```",
    ],
)  # fmt: skip
def test_what_is_no_formula(text):
    assert "<math" not in html(text)


@pytest.mark.parametrize(
    "source",
    [r"\nosuch{x}", "x^", r"\left(", r"\def\a{\a\a}\a", r"\newcommand{\a}{\a\a}\a"],
)
def test_a_formula_that_cannot_be_converted_is_shown_as_it_is(source):
    assert mathml(source, False) is None
    assert f"<code>{source}</code>" in html(f"${source}$")


HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))", "[a](data:text/html,x)", "[a](vbscript:x)", "[a](/health)",
    "[a](//evil.org)", "[a](file:///etc/passwd)", "![a](http://evil.org/x)",
    "<javascript:alert(1)>",
    '[a](https://x" onclick="alert(1))', '```"><script>\na\n```', "[a][b]\n\n[b]: javascript:x",
    r"$\text{<img src=x onerror=alert(1)>}$", r"$\href{javascript:alert(1)}{x}$",
    r"$\style{color:red}{x}$", r"$\class{c}{x}$", r"$\color{red;x:url(y)}{x}$",
    r'$\color{"onclick=1}x$',
    r"$\text{&lt;script&gt;}$", r"$\unicode{60}$", "|a|\n|-|\n|<b onclick=x>|",
    '[a](https://x.org "><script>")',
]  # fmt: skip


def check_safe(text):
    for tag, attributes in Elements(html(text)).found:
        assert SAFE.fullmatch(tag), tag
        assert not {n for n in attributes if n.startswith("on")} | attributes.keys() & {
            "style",
            "src",
        }
        assert (
            attributes.get("href", "https://")
            .lower()
            .startswith(("https://", "http://", "mailto:"))
        )
        if "href" in attributes:
            assert attributes["rel"] == "noopener noreferrer"


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_hostile_gets_through(text):
    check_safe(text)


PIECES = [*HOSTILE, *"\n*`|<>#\\", "\n\n", "> ", "- ", "    ", "$", "$$", "[", "](", "&#60;", "~~"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_nothing_made_of_hostile_pieces_gets_through(text):
    check_safe(text)


# --- the endpoints ---


def test_render_endpoint(client):
    answer = client.post("/page/render", json={"texts": ["*a*\n\nb", ""]}).json()
    assert answer == {
        "texts": [
            [{"line": 0, "html": "<p><em>a</em></p>\n"}, {"line": 2, "html": "<p>b</p>\n"}],
            [],
        ]
    }
    too_long = client.post("/page/render", json={"texts": ["a" * (1 << 18), "b"]})
    assert (too_long.status_code, too_long.json()["error"]["param"]) == (413, "texts")
    assert client.post("/page/render", json={"texts": "a"}).status_code == 400


def pdf(*pages):
    """Return a PDF with a line of text on each page."""
    n = len(pages)
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(n))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {n} /Kids [{kids}] >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % (5 + 2 * i)
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    out, places = b"%PDF-1.4\n", []
    for i, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (i, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    return out + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n"
        b"%%%%EOF\n" % (size, table, size, len(out))
    )


def send_pdf(client, data):
    return client.post("/page/pdf", json={"data": base64.b64encode(data).decode()})


def test_pdf_endpoint(client):
    pytest.importorskip("pypdf")
    answer = send_pdf(client, pdf("A first page", "and a second"))
    assert answer.json() == {"pages": 2, "text": "A first page\n\nand a second"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no PDF at all", "cannot be read"),
        (pdf("text")[:200], "cannot be read"),
        (pdf(""), "holds no text"),
    ],
)
def test_a_pdf_without_text_is_refused(client, data, said):
    pytest.importorskip("pypdf")
    answer = send_pdf(client, data)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_a_pdf_that_takes_too_long_is_given_up(client, monkeypatch):
    monkeypatch.setattr(routes, "_PDF_SECONDS", 0.01)
    answer = send_pdf(client, pdf("a"))
    assert answer.status_code == 400
    assert "was not read within" in answer.json()["error"]["message"]


# --- the files ---


def test_every_file_of_the_page_is_served(client):
    front = {p.name for p in PAGE.iterdir() if p.suffix in (".js", ".css")}
    assert set(routes.FILES) == front
    index = client.get("/").text
    scripts = "\n".join((PAGE / name).read_text() for name in front if name.endswith(".js"))
    linked = re.findall(r'(?:href|src)="page/([^"]+)"', index)
    imported = re.findall(r'^import .* from "\./([^"]+)";$', scripts, re.MULTILINE)
    assert set(linked) | set(imported) == front
    kinds = {".js": "text/javascript", ".css": "text/css"}
    for name in front:
        answer = client.get(f"/page/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kinds[Path(name).suffix])
        again = client.get(f"/page/{name}", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert client.get("/page/routes.py").status_code == 404
    assert client.get("/page/../app.py").status_code == 404


def test_the_page_loads_nothing_from_elsewhere():
    text = {
        p.name: p.read_text("utf-8") for p in PAGE.iterdir() if p.suffix in (".html", ".js", ".css")
    }
    found = re.findall(r'(?:src|href)="([^"]*)"', text["index.html"])
    assert all(address.startswith(("data:", "#", "page/")) for address in found)
    outside = re.findall(r"https?://[^\s\"'`]+", "\n".join(text.values()))
    assert set(outside) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert [name for name in text if "innerHTML" in text[name]] == ["dom.js"]
    assert not any(
        "@import" in sheet or "url(" in sheet for n, sheet in text.items() if ".css" in n
    )


def test_the_policy_allows_only_the_page_s_own_files(client):
    policy = client.get("/").headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in policy
    text = client.get("/").text
    assert "<style" not in text and not re.search(r"<[^>]* (style|on\w+)=", text)
    assert re.findall(r"<script[^>]*>([^<]*)</script>", text) == [""]


def test_the_page_s_files_need_no_key_but_its_endpoints_do(tmp_path):
    path = make_tiny_llama(tmp_path / "t.gguf", n_ctx=256, vocab="bpe")
    with ggq.load(path, threads=1) as model, saying(model, "hi", api_keys=("k",)) as client:
        assert client.get("/").status_code == client.get("/page/main.js").status_code == 200
        assert client.post("/page/render", json={"texts": ["a"]}).status_code == 401
        assert client.post("/page/pdf", json={"data": ""}).status_code == 401


@settings(max_examples=100, deadline=None)
@given(
    body=st.one_of(
        st.binary(max_size=60),
        st.lists(st.text(), max_size=3).map(lambda texts: json.dumps({"texts": texts}).encode()),
    )
)
def test_no_body_makes_the_renderer_fail(client, body):
    assert client.post("/page/render", content=body).status_code in (200, 400, 413)


@pytest.mark.parametrize("text", ["\ud800", "\x00", "\r\r\n", "$\ud800$", "```\x00\n\x1b[0m"])
def test_odd_characters_are_rendered(client, text):
    answer = client.post("/page/render", content=json.dumps({"texts": [text]}))
    assert answer.status_code in (200, 400)
