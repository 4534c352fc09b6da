"""The parts of an evaluation: which methods and episodes, the engine, what was found."""
