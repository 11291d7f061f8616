from .learning_rate import epochs_of_search as epochs_of_search
from .learning_rate import search_learning_rate as search_learning_rate
from .precisions import choose_precisions as choose_precisions
from .precisions import precisions_for_size as precisions_for_size
from .teacher_layer import search_teacher_layer as search_teacher_layer
