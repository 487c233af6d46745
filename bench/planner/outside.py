"""Requests that no built-in skill serves, in many people's words: the catalog planner has to leave them alone.

Some are far from any skill; many use the words of skills for something else, or ask for one thing more than there is.
`asterism bench planner` and the tests count those that are planned all the same. It must not know the planner.
"""

from __future__ import annotations

from typing import Final

OUTSIDE: Final = tuple(
    one.strip()
    for one in r"""
summarize "some text" | summarize https://example.com | read a.txt then summarize it | ask the model about a.txt
book a flight to Paris for next Monday | what's the weather in Berlin? | translate report.txt into German
summarize notes.txt | send an email to bob@example.com | write a poem about autumn
delete all files in logs | move *.log to archive/ | copy a.txt to my phone | open the door | find love in Paris
find a restaurant near me | count sheep | count people in photo.jpg | check the stock price of NVDA
get me a coffee | read me a story | list the planets | list my meetings for today, tomorrow and Friday
search google.com for shoes | remind me at 5pm to call mum | train a neural network on data.csv
plot sales.csv as a bar chart | convert video.mp4 to gif | compress video.mp4 to 720p
deploy the app to production | free my disk | load the gpu | fix the bug in main.py | run the tests
execute order 66 | tell me a joke | sleep well | wait for me | say something nice about my boss
ask my boss for a raise | find *.log in logs and email them to bob
count ERROR in logs/a.log then translate it | don't hash a.txt | hash a.txt unless it is empty
hash passwords | error 404 | pack my bags | zip your lips | download the latest Linux kernel
post a photo on instagram | query the database for customers | sort data.csv by price
merge a.csv and b.csv | encrypt secrets.txt | check that everything is fine | what is in a.txt
if a.txt exists then hash it | every day at 9 fetch https://example.com
check https://example.com every 5 minutes | find files larger than 1GB in /data
find *.log in logs older than 7 days | count ERROR in a.log and alert me if more than 10
search a.txt for "x" and replace it with "y" | write "hello" to bob@example.com | unzip a.zip into folder b/
hash the password "secret" with bcrypt | fetch https://example.com every minute
extract the zip code from address.txt | find "truth" | count ERROR and WARN in a.log | make it so
list them | a.txt | hello | summarise the errors -> mail | hash all files in a.zip | count all files in src
find *.txt in a.zip | for each file in a.zip, hash it | find *.log in logs and count them
find *.log in logs then count each | list the files in archive.zip | count people in a.txt
count errors in a.log | search a.log for problems | write all files in src to x | hash everything
book me a table for two at eight | order a pizza with extra cheese | buy 10 shares of ACME at market price
pay the electricity bill | renew my passport | call the dentist and move the appointment to Tuesday
turn off the lights in the kitchen | set the thermostat to 21 degrees | play some jazz | pause the music
take a selfie | scan this receipt | print three copies of the contract | fax it to the lawyer
send a text to Maria saying I am late | send an invoice to the client | email me when it is done
reply to the last mail from Tom | unsubscribe me from all newsletters
schedule a meeting with the team on Thursday | set an alarm for 6:30
start a timer for ten minutes and ring | remind me to water the plants | add milk to the shopping list
what time is it in Tokyo | what's the capital of Australia? | who won the match last night
how tall is Mount Everest | how old is the universe | how far is it to the moon
how many calories are in a banana | how many people live in Lagos? | how do I get to the station
how does a diesel engine work | why is the sky blue? | why did the build fail
explain quantum entanglement to a child | explain what this regex does: ^a+b$ | define serendipity
translate good morning into Japanese | translate notes.txt to French
translate each file in docs into English | summarize report.pdf
summarise the meeting notes in notes.txt in three bullet points | write an essay about the French revolution
write a haiku | write a cover letter for the job in job.txt | write unit tests for parser.py
write a function that reverses a list | write me a story about a dragon | write documentation for the API
write a report | write a report on climate change | write a report about our sales in Europe
write something nice to alice@example.com | rewrite intro.txt in a friendlier tone | proofread letter.txt
correct the spelling in essay.txt | paraphrase the first paragraph of a.txt
shorten summary.txt to 100 words | improve my resume | generate a logo for my bakery
generate ten random names | generate a random number between 1 and 100 | draw a cat | paint the fence
compose a melody in C minor | create a new folder called backup | create an empty file notes.txt
create a database for my customers | create a user bob on the server | create a chart of sales.csv
make a backup of /home | make a copy of a.txt | make a directory called out | make a pie chart from data.csv
make me laugh | make coffee | rename a.txt to b.txt | rename all files in photos to their date
move a.txt to archive/ | move every file older than a year into old/ | copy logs/ to backup/
copy the newest file in logs to /tmp | delete a.txt | delete the logs | delete every file in tmp
remove duplicates from list.txt | remove the second line of a.txt | remove trailing whitespace from main.py
erase my browsing history | empty the trash | wipe the disk | format drive D | shred secrets.txt
truncate a.log | append "done" to log.txt | prepend a header to data.csv | insert a row into table.csv
replace foo with bar in main.py | replace every tab by four spaces in *.py
edit config.yaml and set debug to true | change the port in config.json to 8080
set the owner of a.txt to root | chmod 644 a.txt | touch a.txt | symlink a.txt to b.txt
mount the usb stick | unmount /mnt/data | eject the cd | install numpy | upgrade all packages
uninstall the old driver | update the dependencies in requirements.txt | compile main.c | build the project
build a house | run the tests and tell me which ones fail | run main.py | run a marathon | run away
lint src/ | format the code in src/ | refactor utils.py into smaller functions | fix the typo in README.md
fix the failing test | fix my car | debug the crash in core.dump | profile the slow query
optimize query.sql | review the pull request | merge the branch into main | commit the changes and push
revert the last commit | clone the repository | open a ticket for the bug | close all issues that are stale
deploy version 2 to staging | roll back the release | restart nginx | restart the server
stop the container web-1 | scale the service to five replicas | kill process 4711 | shut down the computer
reboot pi-1 | log me out | lock the screen | change my password | reset the router | ping example.com
traceroute to example.com | resolve example.com to an address | open https://example.com in the browser
log in to https://example.com and download the invoice | crawl https://example.com and collect all links
scrape the prices from https://shop.example.com | fill in the form at https://example.com/form
take a screenshot of https://example.com | monitor https://example.com and alert me when it is down
check https://example.com for broken links | check https://example.com/health until it is up
check whether https://example.com mentions ACME | check if a.txt exists
check that a.txt and b.txt are the same | check that the backup worked | check my spelling | check my email
check in to my flight | check the weather | check all certificates for expiry | get the third line of a.txt
get the size of a.txt | get rid of a.txt | get me the phone number of the plumber | get well soon
fetch the newspaper | fetch the latest commit | fetch and merge
download all images from https://example.com | download the video and cut out the first minute
download more RAM | upload a.txt to https://example.com/upload | upload photos to the cloud
post a comment on the blog | post this on mastodon | send a.txt to bob | send help
send the file to the printer | send {"a": 1} by mail to bob | find my keys
find a flat in Berlin under 900 euros | find the bug in server.py | find the largest file in /var
find the oldest log in logs | find files modified today in src | find files bigger than 10 MB in downloads
find empty folders in projects | find *.log in logs that mention timeout
find *.log in logs except debug.log | find *.log in logs sorted by size
find *.py in src and count functions | find *.py in src not containing tests
find duplicate photos in pictures | find a synonym for happy | find the square root of 2
find the average of column b in data.csv | find out who owns example.com | find out why disk is full
find the shortest path from A to B | find anagrams of listen | find bugs | find nemo
list the states of America | list my todos | list all users of the system
list the ten largest files in /var | list the processes that use most memory
list the files in logs that changed since yesterday | list all branches | list five reasons to exercise
list synonyms of quick | search the web for cheap flights | search my mail for the invoice
search a.txt for names of people | search the database | search for life on Mars
search a.log and b.log for the same errors | search every file for the word that occurs most
match the colours of the curtains | match invoices with payments
match each customer in a.csv with an order in b.csv | extract the text from scan.png
extract all email addresses from the website | extract the audio from film.mp4
extract the tables from report.pdf | extract the third column of data.csv
extract the main idea of article.txt | extract the tooth | count to ten | count the stars in the sky
count the people in the room | count my blessings | count the number of cats in cats.jpg
count the unique words in a.txt | count the errors per hour in server.log
count the errors in server.log since yesterday | count ERROR in a.log but not in b.log
count ERROR case-insensitively in a.log | count ERROR in a.log grouped by hour
count ERROR in the last 100 lines of a.log | count the lines of code in src excluding comments
count the rows where age > 30 in people.csv | count votes for each candidate | count down from 10
count words longer than five letters in a.txt | count on me | count Dracula
how many lines did I write yesterday | how many words does an average novel have
how many times have I told you | how many files are open | how many errors were there last week
how much is 2 + 2 | how much money did I spend in May | how much does a flight to Rome cost
how much memory does chrome use | how much disk will I need next year | how often does the bus run
how often does it rain in London | how often should I water a cactus | hash browns | hash out the details
hash a.txt with md5 | hash a.txt and compare it with b.txt | hash every other file in logs
hash a.txt only if it changed | compute the sha512 of a.txt | compute the sha256 of the empty string
compute pi to 100 digits | compute the determinant of the matrix in m.csv | compute the checksum of my life
checksum all files and report mismatches against sums.txt | verify the signature of a.txt.asc
verify sums.txt | compare a.txt with b.txt | diff a.txt b.txt | sort names.txt alphabetically
sort the files in logs by date | shuffle playlist.m3u | reverse the lines in a.txt
split big.csv into ten files | join a.csv and b.csv on id | concatenate a.txt and b.txt
deduplicate customers.csv | transpose matrix.csv | pivot sales.csv by region
filter people.csv to those over 30 | convert data.csv to json | convert notes.md to pdf
convert 10 miles to kilometres | convert all png files in images to jpg | resize photo.jpg to 800x600
rotate photo.jpg by 90 degrees | crop the picture | blur the faces in photo.jpg | caption photo.jpg
transcribe interview.mp3 | read the room | read aloud story.txt | read my mind | read a.txt backwards
read the first ten lines of a.txt | read data.csv and plot it | read a.txt and answer the questions in it
read between the lines | load the dishwasher | load the truck and drive to Lyon
load test https://example.com with 100 users | load the model weights | save the whales | save money
save the date | save my work | save a.txt as pdf | save the page as a picture | store the milk in the fridge
export the database to data.sql | export my contacts | import contacts.vcf | archive my emails from 2019
archive the project | pack for a trip to Iceland | pack the logs and mail them to ops
pack a.txt and b.txt with a password | zip up your jacket | zip code of Springfield
zip a.txt with maximum compression and split it | unzip archive.zip and delete it | unpack my things
unpack the argument in essay.txt | unpack a.zip but only the images | encrypt a.zip with gpg | decrypt a.gpg
sign contract.pdf | run the command | run the command that lists files | run it again | run sql
run a query to find the best customers | query the weather service for Oslo | query customers
execute the plan | execute trades when the price drops | execute him | ask Alice for the report
ask my wife what she wants for dinner | ask the audience | ask why | ask the model to summarise a.txt
say hello to everybody in the channel | say it with flowers | echo chamber effects on elections
echo my voice in the canyon | wait for the build to finish | wait until https://example.com is up
wait until noon | wait for approval from the boss | wait a minute | wait and see | wait, what? | sleep tight
sleep on it | sleep until morning | pause the download | assert dominance | assert that all tests pass
fail gracefully | fail fast | show me the money | show me the way | show the disk usage of each folder
show the system information of my phone | show the top ten processes | show the calendar
show pictures of kittens | show the difference between a.txt and b.txt
show the errors in server.log on a map | system failure analysis of the Apollo programme
system of equations x+y=3, x-y=1 | please help me with my homework | please be quiet | please fix everything
could you kindly tell me what you can do? | can you dance? | can you keep a secret
would you mind closing the window | would you recommend this book? | are you there | is the server healthy?
is a.txt older than b.txt | is it going to rain tomorrow? | does a.txt contain personal data
does the code in main.py have bugs | did anyone log in last night | do my taxes | do nothing | do it again
don't count the lines in a.txt | do not fetch https://example.com | never hash a.txt | stop counting
undo that | forget it | i need a lawyer | i want to learn Spanish | i would like a cup of tea | i am bored
i lost my wallet on the train yesterday and I don't know what to do about it
we should talk about the budget | let's go | help | hi | thanks | yes | 42 | ?! | ... | todo | foo bar baz
asdf qwer yxcv | the quick brown fox jumps over the lazy dog | lorem ipsum dolor sit amet
ERROR ERROR ERROR | a.log b.log c.log | logs/ | *.log | https://example.com | count | find | hash
count count count | find find in find | read write execute | pack unpack repack | errors in my ways
sumarize the docment plese | tranlsate teh file to germn | delte all teh logs | buk a fligt to pairs
wrtie a poem abuot teh sea | hey could u pls email teh report to jim thx | yo whats the wether like
cnt u find me a gud restaurant
so basically what I need is that somebody looks through our whole wiki and tells me which pages are out of date
I was wondering whether it might be possible for you to arrange the photos of our holiday by who is in them
As a product manager I want a dashboard of weekly active users so that I can see the trend
Our customer complained that invoices are wrong; go through them, find the mistakes and write her an apology
Take the sales figures of the last three years, fit a trend line and forecast the next four quarters
Given the transcripts in calls/, rate how polite each agent was and rank them
Look at the photos in holiday/, pick the best ten and make an album
Go through logs/ and tell me what went wrong last night | Read all files in docs/ and build a glossary
Train a classifier on labelled.csv and report its accuracy
Cluster the customers in customers.csv into five groups | Predict tomorrow's temperature from weather.csv
Detect anomalies in metrics.csv | Label each image in images/ with what it shows
Count the cars in each photo of the folder street
Find all pdf files in papers and summarise each in one sentence
Find *.md in docs and translate each into German | Find *.log in logs, then email the worst one to ops
Find *.jpg in photos and resize each to 300 pixels | Find *.csv in data then plot each
Find *.py in src, then run the tests of each | Fetch https://example.com and translate it
Fetch https://example.com and tell me if the price dropped
Fetch https://example.com/a and https://example.com/b and compare them
Hash every file in a and b and list those that differ | Count ERROR in logs/*.log and text me the total
Count ERROR in logs/*.log and open a ticket if there are more than 5
Count ERROR in logs/*.log every night at 2 | Pack logs/*.log into logs.zip and upload it to s3
Unzip a.zip and install it | Write "hello" to a.txt as root | Write "hello" to a.txt and then print it
Wait 5 seconds and then launch the rocket | Ask me "Deploy?" and deploy if I say yes
Run the command "make" and fix the errors | if there are errors in a.log, restart the server
unless a.txt is empty, hash it | whenever a file appears in inbox/, hash it | when you have time, hash a.txt
after lunch fetch https://example.com | as soon as possible call me | repeat after me
either hash a.txt or b.txt | hash a.txt or b.txt | hash neither a.txt nor b.txt
count the lines in a.txt minus the lines in b.txt | count the lines in a.txt twice | hash a.txt, or else
the file a.txt should not be hashed | what would happen if I hash a.txt | why hash a.txt
who can hash a.txt? | has anybody read a.txt | I already hashed a.txt | tomorrow count the lines in a.txt
count the lines in a.txt for Bob | count the lines in my head | count the words in the Bible
count the words of the president | hash the cookie | fetch the dog | download the app | get lost
check mate | check please | wie wird das Wetter morgen?
bitte übersetze brief.txt ins Englische
schreib mir ein Gedicht über den Herbst | bestelle zwei Pizzen
lösche alle Dateien im Ordner tmp | wer hat gestern gewonnen
fasse den Bericht zusammen | quel temps fera-t-il demain ?
réserve une table pour deux | écris un poème sur la mer
traduis ce texte en anglais | supprime tous les fichiers
résume le document rapport.pdf | ¿qué tiempo hará mañana?
reserva un vuelo a Madrid | escribe una carta a mi abuela | borra todos los archivos
che tempo farà domani? | prenota un tavolo per due | scrivi una poesia
qual é a capital do Brasil | escreva um poema
apague todos os arquivos | boek een vlucht naar Parijs | wat is het weer morgen | napisz wiersz o jesieni
usuń wszystkie pliki | напиши стихотворение об осени
какая завтра погода | удали все файлы | 明天天气怎么样 | 帮我订一张去北京的机票 | 写一首诗
明日の天気は | ピザを注文して | 내일 날씨 어때 | اكتب قصيدة | ما هو الطقس غدا
yarın hava nasıl | kirjoita runo | δώσε μου τον καιρό | כתוב שיר
""".strip()
    .replace("\n", " | ")
    .split(" | ")
)
