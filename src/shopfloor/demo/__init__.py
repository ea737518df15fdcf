"""The demonstration: a small real project, a dozen orders, a scripted agent; everything else is what users get."""
