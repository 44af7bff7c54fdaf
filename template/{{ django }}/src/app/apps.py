from django.apps import AppConfig


class PredictionsConfig(AppConfig):
    name = "app"
    label = "predictions"
    verbose_name = "Replicate"
