"""A hundred sentences in ten languages and six scripts, to train tokenizers on and to embed."""

LANGUAGES = {
    "en": """The train to the coast leaves at half past nine.
How can I change the password of my account?
A small fire broke out in the kitchen last night.
She plays the violin in the city orchestra.
Water boils at one hundred degrees at sea level.
The museum is closed on Mondays and public holidays.
Our new printer does not connect to the network.
Bread, butter and two litres of milk, please!
Voters will choose a new parliament in October.
He forgot his umbrella, so he came home wet.""",
    "de": """Der Zug an die Küste fährt um halb zehn ab.
Wie kann ich das Passwort meines Kontos ändern?
Gestern Nacht ist in der Küche ein kleines Feuer ausgebrochen.
Sie spielt Geige im Orchester der Stadt.
Wasser siedet auf Meereshöhe bei hundert Grad.
Das Museum ist montags und an Feiertagen geschlossen.
Unser neuer Drucker verbindet sich nicht mit dem Netz.
Brot, Butter und zwei Liter Milch, bitte!
Im Oktober wird ein neues Parlament gewählt.
Er hatte den Regenschirm vergessen und kam nass nach Hause.""",
    "fr": """Le train pour la côte part à neuf heures et demie.
Comment puis-je changer le mot de passe de mon compte ?
Un petit incendie s'est déclaré dans la cuisine cette nuit.
Elle joue du violon dans l'orchestre de la ville.
L'eau bout à cent degrés au niveau de la mer.
Le musée est fermé le lundi et les jours fériés.
Notre nouvelle imprimante ne se connecte pas au réseau.
Du pain, du beurre et deux litres de lait, s'il vous plaît !
Les électeurs choisiront un nouveau parlement en octobre.
Il avait oublié son parapluie et il est rentré trempé.""",
    "es": """El tren a la costa sale a las nueve y media.
¿Cómo puedo cambiar la contraseña de mi cuenta?
Anoche se declaró un pequeño incendio en la cocina.
Ella toca el violín en la orquesta de la ciudad.
El agua hierve a cien grados al nivel del mar.
El museo cierra los lunes y los días festivos.
Nuestra nueva impresora no se conecta a la red.
¡Pan, mantequilla y dos litros de leche, por favor!
En octubre se elegirá un nuevo parlamento.
Olvidó el paraguas y llegó mojado a casa.""",
    "ru": """Поезд на побережье отправляется в половине десятого.
Как мне изменить пароль моей учётной записи?
Прошлой ночью на кухне случился небольшой пожар.
Она играет на скрипке в городском оркестре.
Вода кипит при ста градусах на уровне моря.
Музей закрыт по понедельникам и в праздничные дни.
Наш новый принтер не подключается к сети.
Хлеб, масло и два литра молока, пожалуйста!
В октябре избиратели выберут новый парламент.
Он забыл зонт и пришёл домой мокрым.""",
    "el": """Το τρένο για την ακτή φεύγει στις εννιάμισι.
Πώς μπορώ να αλλάξω τον κωδικό του λογαριασμού μου;
Χθες το βράδυ ξέσπασε μια μικρή φωτιά στην κουζίνα.
Παίζει βιολί στην ορχήστρα της πόλης.
Το νερό βράζει στους εκατό βαθμούς στην επιφάνεια της θάλασσας.
Το μουσείο είναι κλειστό τις Δευτέρες και τις αργίες.
Ο νέος μας εκτυπωτής δεν συνδέεται στο δίκτυο.
Ψωμί, βούτυρο και δύο λίτρα γάλα, παρακαλώ!
Τον Οκτώβριο θα εκλεγεί νέο κοινοβούλιο.
Ξέχασε την ομπρέλα του και γύρισε σπίτι βρεγμένος.""",
    "ar": """يغادر القطار إلى الساحل في التاسعة والنصف.
كيف يمكنني تغيير كلمة مرور حسابي؟
اندلع حريق صغير في المطبخ الليلة الماضية.
تعزف على الكمان في أوركسترا المدينة.
يغلي الماء عند مئة درجة على مستوى سطح البحر.
المتحف مغلق أيام الاثنين والعطل الرسمية.
طابعتنا الجديدة لا تتصل بالشبكة.
خبز وزبدة ولتران من الحليب من فضلك!
سيختار الناخبون برلمانًا جديدًا في أكتوبر.
نسي مظلته فعاد إلى البيت مبللًا.""",
    "hi": """तट की ट्रेन साढ़े नौ बजे निकलती है।
मैं अपने खाते का पासवर्ड कैसे बदल सकता हूँ?
कल रात रसोई में छोटी सी आग लग गई।
वह शहर के ऑर्केस्ट्रा में वायलिन बजाती है।
समुद्र तल पर पानी सौ डिग्री पर उबलता है।
संग्रहालय सोमवार और छुट्टियों के दिन बंद रहता है।
हमारा नया प्रिंटर नेटवर्क से नहीं जुड़ता।
रोटी, मक्खन और दो लीटर दूध दीजिए!
अक्टूबर में मतदाता नई संसद चुनेंगे।
वह छाता भूल गया और भीगकर घर आया।""",
    "zh": """去海边的火车九点半出发。
我怎样才能更改账户的密码？
昨天夜里厨房发生了一场小火灾。
她在市交响乐团拉小提琴。
在海平面上，水在一百度沸腾。
博物馆每逢星期一和节假日闭馆。
我们的新打印机连不上网络。
请给我面包、黄油和两升牛奶！
十月选民将选出新的议会。
他忘了带伞，湿着回家了。""",
    "ja": """海岸行きの列車は九時半に出発します。
アカウントのパスワードはどうやって変更できますか？
昨夜、台所で小さな火事が起きました。
彼女は市の楽団でバイオリンを弾いています。
水は海面では百度で沸騰します。
博物館は月曜日と祝日に閉まっています。
新しいプリンターがネットワークにつながりません。
パンとバター、それに牛乳を二リットルください！
十月に有権者は新しい議会を選びます。
彼は傘を忘れて、ぬれて帰ってきました。""",
}
TEXTS = [line for lines in LANGUAGES.values() for line in lines.split("\n")]
