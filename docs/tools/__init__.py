"""What turns the pages of this folder into a site, and into tests.

A page may have lines `{{ ... }}` that are replaced when the site is built (`hooks`): by a figure
(`figures`), a command's help, a file of the repository, or the description of functions (`names`).
Code blocks of pages are found by `blocks`, for tests/test_manual.py, which runs them.
"""
