"""The faces: whole systems, each a short composition over the public interface of the package."""
