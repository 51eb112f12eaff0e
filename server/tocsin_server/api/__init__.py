"""The network's way in. The only room that speaks gRPC; it decides nothing about the product."""
