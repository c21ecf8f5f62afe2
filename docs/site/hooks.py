"""What mkdocs does differently here: the site has the layout of the repository.

So a link between pages, to README.md or to a source file is the same on the site and on a Git host, and a
page is where its file is. Pages are README.md, CONTRIBUTING.md, CHANGELOG.md and what lies in docs/, with
their made parts made anew; whatever else a page links to, in the repository, comes along as it is.
"""

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.site.pages import files as site_files
from docs.site.parts import ROOT, fill
from docs.site.write import MAKERS

STYLE = "docs/site/site.css"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The repository's pages, and what they link to, instead of what lies in docs/."""
    site = Files([file for file in files if file.src_dir != config.docs_dir])  # the theme's
    for name in (*site_files(), STYLE):
        site.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return site


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page's text with what is made from code and figures made anew."""
    return fill(markdown, MAKERS, page.file.src_uri)
