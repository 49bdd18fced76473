"""Scripted behaviour for collecting data: controllers, action noise, and the recipe that combines them."""

from toolkit.controllers.noise import Noise
from toolkit.controllers.recipe import Part, Recipe, load_recipe
from toolkit.controllers.scripted import Controller, RandomController, WaypointController

__all__ = ["Controller", "Noise", "Part", "RandomController", "Recipe", "WaypointController", "load_recipe"]
