"""The tests, a package so that modules of the same name can live in several folders."""
