"""The tests, in folders that mirror src/nulltta.

pytest imports them with `--import-mode=importlib`, which leaves sys.path alone, and every folder is a package: a helper
is imported relative to the test that needs it (`from .serving import running`), two folders may have a file of the same
name, and no module of the tests can shadow an installed one. Fixtures belong in the nearest conftest.py, helpers in a
module without tests. A test module imports no other test module. What somebody else's tests can use too lives in
nulltta.testing.
"""
