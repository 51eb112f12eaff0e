"""Messages and stubs of the package `tocsin.v1`, generated from `protos/tocsin/v1`."""
