# The paper's CLIP experiment: ViT-B-32 on LAION-400M, CelebA and ImageNet, laid out as data/README.md says. Every variable
# can be set from the environment. These weights were trained with QuickGELU and the published runs used plain ViT-B-32;
# MODEL=ViT-B-32-quickgelu is the matching one.
# Expected time: not run here; scripts/run_all_clip.sh --dry-run estimates it. Published figures, mean of the five names, in %,
# original -> SLUG: FA@1 73.05 -> 0, TA_IN@1 60.12 -> 59.96, TA_CA@1 61.38 -> 58.32.
: "${DATA_DIR:=$ROOT/data}"
: "${RESULT_DIR:=$ROOT/results}"

: "${MODEL:=ViT-B-32}"
: "${PRETRAINED:=laion400m_e32}"
: "${CLIP_MODEL_ID:=}" # a Hugging Face CLIP instead of MODEL
: "${NAMES:=Elon_Musk Jeff_Bezos Taylor_Swift Kim_Kardashian Mark_Zuckerberg}" # underscores for spaces
: "${MULTI_METHOD:=slug}" # of the names that are forgotten together; slug_w, slug_ws: along the whitened gradient
: "${MULTI_FRONTS:=1}" # Pareto fronts of each encoder that are searched for them; 1: as published
: "${MULTI_NAMES:=Elon_Musk Mark_Zuckerberg Jeff_Bezos Taylor_Swift Kim_Kardashian Kanye_West}" # forgotten together, two or more
: "${MULTI_OBJECTS=Basketball Beach Castle Revolver Rifle School_bus Sunglasses}" # the same of objects; empty: none
: "${MULTI_MIXTURE=Elon_Musk Basketball Taylor_Swift Castle}" # and of both
: "${MULTI_IMAGENET_SHARE:=1}" # IMAGENET_SHARE where objects are forgotten: 5% has two or three pictures of each
: "${STUDY_NAMES:=}" # beside NAMES in the study of the claims
: "${STUDY_JOBS:=1}" # processes that do its runs at once, each with its share of the cores
: "${LASTING_JOBS:=1}" # the same of run_lasting.sh, each with names of its own

: "${METADATA_DIR:=$DATA_DIR/laion/metadata}" # LAION-400M's own parquet files, for scripts/download_laion400m.sh
: "${LAION_DIR:=$DATA_DIR/laion/laion400m}"
: "${TAR_DIR:=$DATA_DIR/tar_files}"
: "${IMAGE_DIR:=$DATA_DIR/laion/laion400m_obj}"
: "${KNOWN_NAMES:=}" # a file of names: the longest of these in a caption wins
: "${TRAIN_DATA:=$LAION_DIR/00000.tar}"
: "${VAL_DATA:=$DATA_DIR/celeba}"
: "${IMAGENET_VAL:=$DATA_DIR/ImageNet/val}"
: "${IMAGENET_SHARE:=0.05}" # part of its pictures, drawn by SEED
: "${MAX_COUNT:=500}" # pairs of a forget set, at most

: "${DISTRIBUTOR:=multiprocessing}" # of img2dataset: or pyspark, ray
: "${PROCESSES:=16}"
: "${THREADS:=128}" # connections a process
: "${IMAGE_SIZE:=256}"
: "${RETRIES:=2}"
: "${TIMEOUT:=10}" # seconds

: "${PIPELINE:=sd-legacy/stable-diffusion-v1-5}" # or a folder, such as UnlearnCanvas's fine-tuned one
: "${SD_CLIP:=openai/clip-vit-large-patch14}" # the CLIP of its text tower; SD 2.1: laion/CLIP-ViT-H-14-laion2B-s32B-b79K
: "${CANVAS_DIR:=$DATA_DIR/UnlearnCanvas}"
: "${CLASSIFIERS:=$CANVAS_DIR/classifiers}"
: "${NEVER_LEARNED:=}" # JSON that lists prompts which are not asked for
# What is asked for: the styles and objects that UnlearnCanvas's classifiers know, the photographs (Seed_Images) apart; ten more
# styles of the data set they do not know.
: "${CANVAS_STYLES:=Abstractionism Artist_Sketch Blossom_Season Bricks Byzantine Cartoon Cold_Warm Color_Fantasy Comic_Etch \
Crayon Cubism Dadaism Dapple Defoliation Early_Autumn Expressionism Fauvism French Glowing_Sunset Gorgeous_Love Greenfield \
Impressionism Ink_Art Joy Liquid_Dreams Magic_Cube Meta_Physics Meteor_Shower Monet Mosaic Neon_Lines On_Fire Pastel \
Pencil_Drawing Picasso Pop_Art Red_Blue_Ink Rust Sketch Sponge_Dabbed Structuralism Superstring Surrealism Ukiyoe Van_Gogh \
Vibrant_Flow Warm_Love Warm_Smear Watercolor Winter}"
: "${CANVAS_OBJECTS:=Architectures Bears Birds Butterfly Cats Dogs Fishes Flame Flowers Frogs Horses Human Jellyfish Rabbits \
Sandwiches Sea Statues Towers Trees Waterfalls}"
: "${STYLES=$CANVAS_STYLES}" # that are forgotten, one by one; empty: none
: "${OBJECTS=$CANVAS_OBJECTS}"
: "${SD_CONCEPTS:=iron_man mickey_mouse avocado_chair}" # whose forget set the pipeline makes itself
: "${SD_TAR_DIR:=$TAR_DIR/generated}" # apart from those of real pictures
: "${SD_IMAGE_DIR:=$IMAGE_DIR/generated}"
: "${SD_OTHERS:=dog cat car tree bicycle guitar house flower}" # that must stay where these are forgotten
: "${DENOISING_STEPS:=100}"
: "${GUIDANCE:=9}"
: "${GENERATE_BATCH:=8}" # pictures made at once
: "${SD_METHODS:=slug}" # of slug, slug_w and slug_ws (whitened gradients), each with _rounds (several layers), uce, esd
: "${SD_ROUNDS:=3}"
: "${SD_JOBS:=1}" # processes that search at once, each a part of the concepts
: "${MULTI_STYLES:=Van_Gogh Picasso Cartoon}" # forgotten together by run_uncanvas_multi.sh
: "${MULTI_SD_OBJECTS:=Dogs Cats Towers}"
: "${TOKEN_STYLES:=$STYLES}" # that run_tokens.sh looks for again
: "${TOKEN_OBJECTS:=$OBJECTS}"

: "${VLM:=llava-hf/llava-1.5-7b-hf}"
: "${VLM_CLIP:=openai/clip-vit-large-patch14-336}" # the CLIP of its vision tower
: "${VLM_NAMES:=$NAMES}"
: "${QUESTIONS:=$DATA_DIR/vlm/questions.jsonl}" # pictures of the names with what is asked about them: data/README.md
: "${VLM_METHOD:=slug}" # slug steps along the gradient as published, slug_w along the whitened one
: "${VLM_UTILITY:=}" # public sets that are asked besides: folders or files of MME, GQA, MMBench
: "${VLM_FACTORS:=}" # multiples of each step that are scored besides, for the curve of what more forgetting costs
: "${VLM_JOBS:=1}" # processes that search at once, each a name at a time with a model of its own
: "${ANSWER_BATCH:=16}" # questions answered at once
: "${ANSWER_TOKENS:=64}" # of an answer, at most

: "${DEVICE:=auto}"
: "${SEED:=0}"
: "${WORKERS:=4}"
: "${PRECISION:=fp32}" # of evaluations; gradients are always fp32
: "${BATCH_SIZE:=16}"
: "${TRACE:=0}" # retain pictures a task scored at every candidate, so that trade-off plots show them all

: "${METHODS:=ft ga gaft salun ssd}" # baselines; also raw, ga_o, gaft_o, salun_o, ssd_o
: "${COMPARE_NAMES=}" # those of NAMES that the baselines are run on; empty: all
: "${SETTINGS_FROM=}" # table.csv of an earlier comparison: take what it chose; empty: search LR and SELECTION
: "${LR:=1e-7 3.2e-7 1e-6 3.2e-6 1e-5}" # half decades; more are tried where the best is the first or the last
: "${SELECTION:=10}" # selection weights of ssd
: "${EPOCHS:=10}"
: "${FORGET_EPOCHS:=10}" # of ga, whose passes see the forget set alone

: "${RECORDS:=$RESULT_DIR/clip}" # the edits that run_lasting.sh tests
: "${ALIASES:=}" # CSVs of other names for them, with the columns name, alias
: "${RELEARN_LR:=1e-5}"
